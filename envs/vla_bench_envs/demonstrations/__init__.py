"""Demonstrations of scripted experts, collected into a dataset of `vla_bench.demonstrations`; knows no simulator.

| file | what it is |
| --- | --- |
| `source.py` | what a suite must offer for its tasks to be demonstrated |
| `pushes.py` | random pushes of the arm, so that demonstrations show how to come back |
| `recording.py` | one episode of the expert, played to its retreat, as arrays |
| `attempts.py` | what was tried, on disk until it is part of the dataset |
| `crew.py` | the processes that play |
| `collect.py` | `vla-bench collect`: tasks over processes, resumable |
"""
