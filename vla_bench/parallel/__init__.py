"""Many episodes at once: environments in processes of their own, one policy that answers them in batches.

    crew (journal, watchdog) --- play, record --> worker 1..n (environment, the episode's loop)
                                                     |  pictures through shared memory, the rest through a pipe
                                                     v
                                                  desk (the policy, one seat a worker)

exchange.py  an observation in shared memory
heart.py     a sign of life, and the stack of whoever shows none
seat.py      the policy as a worker sees it
desk.py      the process that holds the policy
worker.py    the process that holds an environment
crew.py      these processes on one machine, and what happens when one dies
dealing.py   which turn comes next, whoever plays it: a crew here, or crews on other nodes (`vla_bench.cluster`)

A policy that cannot be shared (an expert that reads the simulator, say) is loaded in every worker, and there is no
desk. What runs at once cannot be timed: records made here say so, and no table shows their latency. A timed plan may be
played by a crew of one that has the policy to itself: its process is watched, and replaced when it hangs or crashes.
"""
