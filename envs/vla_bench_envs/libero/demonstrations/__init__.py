"""Demonstrations of the scripted experts, as a LeRobot dataset that this project writes and reads itself.

| file | what it is |
| --- | --- |
| `initial_states.py` | where demonstrations start: never where policies are evaluated |
| `recording.py` | one episode of the expert, played to its retreat, as arrays |
| `attempts.py` | what was tried, on disk until it is part of the dataset |
| `statistics.py` | minimum, maximum, mean and deviation of an episode, and of many |
| `layout.py` | which file of LeRobotDataset v3.0 holds what |
| `dataset.py` | the dataset's one writer, and its reader |
| `collect.py` | `vla-bench collect`: tasks over processes, resumable |
"""
