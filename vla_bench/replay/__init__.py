"""Methods driven over recorded episodes, without a simulator: what they change in the actions, and what they cost.

| file | what it is |
| --- | --- |
| `recording.py` | a recorded episode, as the observations that a policy was or would have been shown |
| `plan.py` | which recordings, policy and methods; its hash is the replay's name |
| `record.py` | the raw facts of one recording under one method |
| `loop.py` | the loop over recordings and, in turns, methods |
| `tables.py` | action distance, latency and operations, with intervals |
| `masks.py` | films of what happens to each patch |
| `command.py` | `vla-bench replay` |

It never stands for success: an action that differs may be as good.
"""
