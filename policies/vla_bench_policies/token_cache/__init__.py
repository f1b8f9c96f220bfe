"""One engine for every method that saves token rows: rows that are recomputed, reused or deleted, layer by layer.

layout.py       which rows of a prompt are what: all that an adapter declares
plan.py         what happens to each visual row at each layer
rule.py         what decides it: the only place where methods differ
buffer.py       keys and values, one place a row; how old they are
decoder.py      layers that the cache can drive: packed Llama weights, or a module of transformers
attention.py    masks, and the attention of a few chosen rows
cost.py         floating-point operations of a layer
lane.py         what is remembered of one environment
stream.py       the rows on their way through the layers, and the attention that layers call
cache.py        the partial forward
report.py       what caching did in a step
"""
