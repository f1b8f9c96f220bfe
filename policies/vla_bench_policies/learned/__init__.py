"""What learned cache methods share: a frozen policy to learn from, its demonstrations, the loop, the file.

recipe.py      everything that decides a training besides the demonstrations and the policy
windows.py     consecutive inferences of demonstrations, as batches
teacher.py     the frozen policy as training sees it: what an adapter must have, in its own package
blend.py       a decoder run densely: reused keys and values blended in, deleted rows unseen
sharing.py     one batch among processes that train together
trainer.py     the loop over an objective, with exact resume
checkpoint.py  trained networks on the disk
command.py     what the commands of all learned methods ask for, and do
"""
