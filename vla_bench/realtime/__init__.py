"""Latency in the loop: a clock that is not this computer's says how many control steps an answer costs.

clock.py    milliseconds to control steps, remainders carried over
latency.py  how long an answer takes: so many ms, as recorded, as a device would, or as measured now
waiting.py  what the arm does meanwhile
budget.py   how many ms a suite allows: success against delay
command.py  `vla-bench delay`
"""
