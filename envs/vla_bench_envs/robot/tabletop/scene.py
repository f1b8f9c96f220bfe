"""The arm, the table and the things on it, as MuJoCo's XML: a Franka-like arm of capsules on Franka's kinematics.

Shapes and masses are rough (link masses add up to 15.5 kg, a Panda weighs 18); joints, their ends and the tool are
exact, so that a posture means the same in the simulator, in the gate and on a Panda. Primitives collide and draw
fast: both cameras take 4 to 5 ms at 224 px in software OpenGL.
"""

import numpy as np

from vla_bench_envs.robot.kinematics import PANDA, UR5E
from vla_bench_envs.robot.limits import Limits

STEP_S = 0.002
"""Of the physics: 500 Hz."""

CAMERAS = ("front", "wrist")
"""Of the scene."""

Point = tuple[float, float, float]
Links = tuple[tuple[float, tuple[tuple[Point, Point, float], ...]], ...]
"""Mass [kg] and capsules of each link: from, to [m, the link's frame], radius [m]. The frames are the chain's."""

PANDA_LINKS: Links = (
    (3.0, (((0, 0, -0.19), (0, 0, -0.02), 0.06),)),
    (3.0, (((0, 0, -0.06), (0, 0, 0.06), 0.06), ((0, -0.05, 0), (0, -0.13, 0), 0.055))),
    (2.5, (((0, 0, -0.14), (0, 0, -0.06), 0.055), ((0.02, 0, -0.02), (0.08, 0, 0), 0.05))),
    (2.5, (((0, 0, -0.05), (0, 0, 0.05), 0.055), ((-0.02, 0.02, 0), (-0.0825, 0.08, 0), 0.05))),
    (2.5, (((0, 0, -0.26), (0, 0.03, -0.16), 0.05), ((0, 0.06, -0.14), (0, 0.06, -0.05), 0.04))),
    (1.5, (((0, 0, -0.04), (0, 0, 0.04), 0.05), ((0.02, 0, 0), (0.088, 0.02, 0), 0.045))),
    (0.5, (((0, 0, -0.01), (0, 0, 0.07), 0.045),)),
)
UR5E_LINKS: Links = (
    (3.7, (((0, 0, -0.06), (0, 0, 0.02), 0.065), ((0, 0, 0), (0, -0.06, 0), 0.065))),
    (8.4, (((0, 0, 0.08), (0, 0, 0.15), 0.06), ((0, 0, 0.138), (-0.425, 0, 0.138), 0.06))),
    (2.3, (((0, 0, 0.13), (0, 0, 0.02), 0.055), ((0, 0, 0.01), (-0.3922, 0, 0.01), 0.05))),
    (1.2, (((0, 0, -0.08), (0, 0, 0.02), 0.047),)),
    (1.2, (((0, 0, -0.06), (0, 0, 0.02), 0.047),)),
    (0.2, (((0, 0, -0.04), (0, 0, -0.02), 0.04),)),
)
LINKS = {PANDA.name: PANDA_LINKS, UR5E.name: UR5E_LINKS}
"""By the chain's name; the UR5e's are rougher than the Panda's, and only checked for collision."""

HAND_REACH_M = 0.1034
"""From where the hand is mounted to its tool's point; the same rough hand stands for every gripper."""

STIFFNESS_NM_RAD = (4000.0,) * 4 + (1500.0,) * 3
DAMPING_NMS_RAD = (200.0,) * 4 + (60.0,) * 3
"""Of the joints' position servos."""

ROOM_RAD = 0.1
"""Beyond the joints' stated ends, so that it can be seen when they are passed."""

TORQUE_HEADROOM = 1.3
"""Servos give so many times the limit's torque, so that a limit can be seen to be broken."""

GRIP_N = 40.0
"""Force of a finger. Source: Franka Hand, continuous force 70 N, limited here."""


def scene(limits: Limits, with_things: bool = True) -> str:
    """Return the XML of the arm on its table, with or without the things that can be moved."""
    return f"""
<mujoco model="tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{STEP_S}" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual><headlight ambient=".35 .35 .35" diffuse=".5 .5 .5" specular="0 0 0"/><map znear=".02"/>
    <quality offsamples="0" shadowsize="0"/></visual>
  <default>
    <geom group="1" solref=".01 1" rgba=".92 .93 .95 1"/>
    <default class="pad"><geom type="box" friction="2 .05 .0001" condim="4" rgba=".25 .25 .27 1"/></default>
    <default class="thing"><geom friction="1 .02 .0001" condim="4"/></default>
  </default>
  <worldbody>
    <light pos=".3 .4 2" dir="0 -.2 -1" castshadow="false"/>
    <geom name="table" type="plane" size="2 2 .1" rgba=".72 .6 .46 1"/>
    <camera name="front" pos="1.45 0 .75" xyaxes="0 1 0 -.45 0 .893" fovy="44"/>
    <body name="link0"><geom type="capsule" fromto="0 0 .06 0 0 .1" size=".075" mass="4"/>
      {_arm(limits)}
    </body>
    {_THINGS if with_things else ""}
  </worldbody>
  <contact>{_exclusions(limits.chain.n_joints)}</contact>
  <actuator>{_servos(limits)}</actuator>
</mujoco>"""


def _arm(limits: Limits) -> str:
    inner, chain = _hand(limits), limits.chain
    for index in reversed(range(chain.n_joints)):
        mass_kg, capsules = LINKS[chain.name][index]
        a, d, alpha = chain.a_m[index], chain.d_m[index], chain.alpha_rad[index]
        place = f"{a:.12g} {-np.sin(alpha) * d:.12g} {np.cos(alpha) * d:.12g}"
        low, high = limits.joint_low_rad[index] - ROOM_RAD, limits.joint_high_rad[index] + ROOM_RAD
        mass = mass_kg / len(capsules)
        shapes = "".join(
            f'<geom type="capsule" fromto="{_text(start)} {_text(end)}" size="{radius}" mass="{mass}"/>'
            for start, end, radius in capsules
        )
        quaternion = f"{np.cos(alpha / 2):.15g} {np.sin(alpha / 2):.15g} 0 0"
        inner = f"""<body name="link{index + 1}" pos="{place}" quat="{quaternion}" gravcomp="1">
          <joint name="joint{index + 1}" axis="0 0 1" range="{low} {high}" armature=".1" damping="1"/>
          {shapes}{inner}</body>"""
    return inner


def _hand(limits: Limits) -> str:
    turn = limits.chain.tool_turn_rad / 2
    mounted_m = f"{limits.chain.flange_m - HAND_REACH_M:.12g}"
    reach = limits.gripper_open_m / 2
    fingers = "".join(
        f"""<body name="{name}" pos="0 0 .0584" gravcomp="1">
          <joint name="{name}" type="slide" axis="0 {side} 0" range="0 {reach}" armature=".1" damping="10"/>
          <geom class="pad" size=".011 .006 .0235" pos="0 {side * 0.0065} .0235" mass=".05"/></body>"""
        for name, side in (("left", 1), ("right", -1))
    )
    return f"""<body name="hand" pos="0 0 {mounted_m}" quat="{np.cos(turn):.15g} 0 0 {np.sin(turn):.15g}" gravcomp="1">
      <geom type="box" size=".03 .1 .029" pos="0 0 .029" mass=".5" rgba=".85 .86 .88 1"/>
      <camera name="wrist" pos=".075 0 .03" xyaxes="0 1 0 1 0 .25" fovy="75"/>
      <site name="tool" pos="0 0 .1034" size=".004" group="4"/>{fingers}</body>"""


def _exclusions(n_joints: int) -> str:
    """Return the pairs that touch by design: neighbours, neighbours' neighbours, and what is on the wrist."""
    names = [f"link{index}" for index in range(n_joints + 1)] + ["hand"]
    *_, elbow, wrist, last, _ = names
    pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 : place + 3]]
    pairs += [("hand", "left"), ("hand", "right"), ("left", "right"), (last, "left"), (last, "right")]
    pairs += [(wrist, "left"), (wrist, "right"), (elbow, "hand")]
    return "".join(f'<exclude body1="{one}" body2="{other}"/>' for one, other in pairs)


def _servos(limits: Limits) -> str:
    joints = "".join(
        f'<position joint="joint{index + 1}" kp="{STIFFNESS_NM_RAD[index]}" kv="{DAMPING_NMS_RAD[index]}" '
        f'forcerange="{-TORQUE_HEADROOM * torque} {TORQUE_HEADROOM * torque}"/>'
        for index, torque in enumerate(limits.joint_torque_nm)
    )
    fingers = "".join(
        f'<position joint="{name}" kp="2000" kv="60" forcerange="{-GRIP_N} {GRIP_N}"/>' for name in ("left", "right")
    )
    return joints + fingers


def _text(numbers: tuple[float, ...]) -> str:
    return " ".join(map(str, numbers))


_THINGS = """
    <body name="bottle" childclass="thing"><freejoint/>
      <geom type="cylinder" size=".025 .08" mass=".2" rgba=".15 .6 .3 1"/></body>
    <body name="cube" childclass="thing"><freejoint/>
      <geom type="box" size=".02 .02 .02" mass=".06" rgba=".85 .15 .12 1"/></body>
    <body name="cup" childclass="thing"><freejoint/>
      <geom type="box" size=".045 .045 .003" pos="0 0 .062" mass=".04" rgba=".93 .8 .2 1"/>
      <geom type="box" size=".003 .045 .0295" pos=".042 0 .0295" mass=".02" rgba=".93 .8 .2 1"/>
      <geom type="box" size=".003 .045 .0295" pos="-.042 0 .0295" mass=".02" rgba=".93 .8 .2 1"/>
      <geom type="box" size=".039 .003 .0295" pos="0 .042 .0295" mass=".02" rgba=".93 .8 .2 1"/>
      <geom type="box" size=".039 .003 .0295" pos="0 -.042 .0295" mass=".02" rgba=".93 .8 .2 1"/>
      <geom type="box" size=".015 .015 .02" pos="0 0 .085" mass=".02" rgba=".6 .3 .1 1"/></body>
    <body name="block" childclass="thing"><freejoint/>
      <geom type="box" size=".015 .015 .015" mass=".03" rgba=".15 .3 .8 1"/></body>
"""
