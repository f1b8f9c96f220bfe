"""Training the reference VLA: demonstrations in, a checkpoint out.

recipe.py       everything that decides the weights, and the presets
form.py         what demonstrations look like, and the model that fits them
frames.py       decoded demonstrations, split by episode
batches.py      which frames a step sees, and how they are altered
state.py        what resuming needs, on the disk
team.py         several processes that train as one, each with its share of a batch
trainer.py      the loop
curve.py        its figure
command.py      `vla-bench train reference`, `vla-bench train export`
"""
