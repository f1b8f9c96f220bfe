"""LAC, learnable adaptive caching (arXiv:2602.00686): learn which visual rows to recompute, and how many.

    frames now and at the last inference -> flow -> gates -> scores of rows, logits of ratios -> plan of the token cache

flow.py         what moved between two frames
gates.py        the two networks, Cached Token Selector and Cache Ratio Predictor, on one stem
relaxation.py   from scores and logits to masks that have a gradient
rule.py         the rule that follows them, with stochastic recovery

No public implementation existed when this was written. Where the paper is silent, the choice made here is a named field
with its reason.
"""
