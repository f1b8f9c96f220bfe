"""VLA-ACL (arXiv:2610.08133): learn which visual rows to delete, the nearest learned rival of LAC.

    projected rows of all views -> scorer -> K highest of each view stay, the others are gone before the decoder

selection.py   soft top-k with an exact sum (LapSum), and its hard limit
scorer.py      the network: five bidirectional layers over the rows of all views
rule.py        the rule that follows it
losses.py      what it learns from: the frozen policy with rows faded towards those of a black picture
command.py     `vla-bench train vla-acl`
"""
