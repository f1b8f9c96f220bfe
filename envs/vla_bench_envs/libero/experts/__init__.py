"""Scripted experts for LIBERO's forty standard tasks, with the simulator's state instead of pictures.

geometry    rotations of the gripper, oriented boxes, the separating-axis test
scene       what the simulator knows: poses, bounds, contacts, joints, predicates
clearance   room for the hand, the height to travel at, the way out from under something
motion      an arm that turns poses into actions; a motion is a generator of actions
grasps      where to take hold of an object
skills      pick, place
targets     where an object has to go for a predicate to hold
placements  skills for `On` and `In`
fixtures    drawers, knobs, doors, the plate that is pushed
insertions  the book into the caddy, the mug into the microwave
plans       from goal predicates to skills in order
policy      the experts behind the benchmark's `Policy`
"""
