"""Demonstrations on the disk, as a LeRobot dataset that this project writes and reads itself.

| file | what it is |
| --- | --- |
| `layout.py` | which file of LeRobotDataset v3.0 holds what |
| `writer.py` | a dataset's one writer |
| `dataset.py` | its reader |
| `statistics.py` | minimum, maximum, mean and deviation of an episode, and of many |
"""
