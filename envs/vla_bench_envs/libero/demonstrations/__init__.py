"""Demonstrations of the scripted experts, collected into a dataset of `vla_bench.demonstrations`.

| file | what it is |
| --- | --- |
| `initial_states.py` | where demonstrations start: never where policies are evaluated |
| `pushes.py` | random pushes of the arm, so that demonstrations show how to come back |
| `recording.py` | one episode of the expert, played to its retreat, as arrays |
| `attempts.py` | what was tried, on disk until it is part of the dataset |
| `crew.py` | the processes that play |
| `collect.py` | `vla-bench collect`: tasks over processes, resumable |
"""
