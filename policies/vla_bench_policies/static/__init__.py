"""The token cache at the limit of a GPU: everything *static*, so that a step can be recorded once and replayed.

Buffers never move, the number of computed rows is one of a few *buckets* (multiples of 64), and which rows they are is
worked out on the GPU. A step is then a handful of CUDA graphs, one of the decoder's a bucket, and no launch costs
anything. Nothing here is captured on a CPU: the same code runs eagerly there, and the tests compare it with
`token_cache`.

    pictures --gate--> scores of rows, bucket --+
        |                                       v
        +--vision--> rows of the prompt --> decoder[bucket] --> answer

pointwise.py   what lies between the matrix products, plain or compiled
weights.py     the matrices of a Llama, fused, in their own type or in 8-bit floats
rows.py        buckets, and which rows fill one
decoder.py     all rows, a bucket of them, or fewer from some layer on
answers.py     one pass with a regression head, or tokens one after the other
vision.py      from 8-bit pictures to rows
gates.py       what scores the rows: each method's own decision
programs.py    recording and replay
policy.py      pictures in, actions out
roofline.py    what a machine can do at best, and how long a stage takes then

The host waits once a step at most: where a gate chooses the bucket, somebody has to choose the graph. The number
leaves the GPU right after the gate and the host waits for it *while the GPU computes vision*, which takes longer, so
the GPU does not idle (`policy.StaticPolicy`; the wait is measured by `benchmarks/gpu_steps.py`). The alternative,
conditional nodes of a CUDA graph, would save nothing that can be measured and needs another API than torch's.

DIS flow is an algorithm of the CPU (OpenCV) and would need the pictures there, 5 to 9 ms at 224 px; `gates.LacGate`
has the flow `difference` on the GPU. What a GPU has instead of DIS: NVIDIA's optical flow engine, which is hardware
beside the multiprocessors, or RAFT-small, a network of 1 M parameters; either needs gates that were trained with it.

Stochastic recovery of LAC, VLA-Cache's schedule of layers, and batches of more than one are left to `token_cache`.
"""
