"""Training the gates of LAC for a frozen policy; `learned/` has what all learned methods share.

recipe.py    everything that decides the gates besides demonstrations and policy
losses.py    stage I: imitate the policy's attention; stage II: its own imitation loss against the rows saved
command.py   `vla-bench train lac`
"""
