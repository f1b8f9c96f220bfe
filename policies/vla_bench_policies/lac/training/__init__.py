"""Training the gates of LAC for a frozen policy.

recipe.py    everything that decides the gates besides demonstrations and policy
windows.py   consecutive inferences of demonstrations, as batches
losses.py    stage I: imitate the policy's attention; stage II: its own imitation loss against the rows saved
trainer.py   the loop, with exact resume
command.py   `vla-bench train lac`
"""
