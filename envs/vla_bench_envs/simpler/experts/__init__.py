"""Scripted experts for the four WidowX tasks, with the simulator's state instead of pictures.

scene    what the simulator knows: poses and sizes in the frame of the robot's base
motion   an arm that turns poses into actions; a motion is a generator of actions
plans    pick the source, put it on the target
policy   the experts behind the benchmark's `Policy`
"""
