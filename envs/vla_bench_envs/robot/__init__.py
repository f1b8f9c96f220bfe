"""A physical arm, or a simulated one, through one bridge: supervisor, endpoint, drivers, environment.

The specification and the figures behind its choices are summarised in docs/real-robot.md. This is no certified safety
function: a hardware stop stays in reach.
"""
