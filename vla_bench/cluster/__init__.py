"""A plan on many machines: crews on the nodes of a Ray cluster, dealt to from here, where the journal is written.

    runner (journal) --- fleet --- Ray ---> outpost 1..n, each on a node: a crew of `vla_bench.parallel`

options.py  how many crews, of how many workers, with which share of a GPU
errors.py   what a cluster can refuse
outpost.py  a crew on a node; knows nothing of Ray, which makes an actor of it
fleet.py    `parallel.dealing.Hands` on other nodes: who is there, who was lost
"""
