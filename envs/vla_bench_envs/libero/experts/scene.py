"""A read-only view of a LIBERO scene: what the simulator knows and no camera shows."""

import re
from functools import cached_property
from typing import Any

import numpy as np

from vla_bench_envs.libero.experts.geometry import Boxes, Indices, Mask, Matrix, Vector

PLANE = 0
"""MuJoCo geom type without bounds, left out everywhere (mjtGeom.mjGEOM_PLANE)."""
ROBOT_PREFIXES = ("robot0", "gripper0", "mount0")
"""Bodies of robosuite's Panda, its gripper and its mount."""
PADS = ("gripper0_finger1_pad_collision", "gripper0_finger2_pad_collision")
"""Collision geoms of the two finger pads."""


def category(name: str) -> str:
    """Return the object category of an instance name: akita_black_bowl_1 is an akita_black_bowl."""
    return re.sub(r"_\d+$", "", name)


class Scene:
    """Poses, bounds, contacts, joints and predicates of one LIBERO simulator. Make a new one after each reset."""

    def __init__(self, simulator: Any) -> None:
        """Read the model of `simulator`, a `BDDLBaseDomain` (what LIBERO's `ControlEnv` holds as `.env`)."""
        self.simulator = simulator
        self.model = simulator.sim.model._model
        self.data = simulator.sim.data._data
        self.names: list[str] = list(simulator.obj_body_id)
        self.goal: list[list[str]] = simulator.parsed_problem["goal_state"]
        self._gripper_site = simulator.robots[0].eef_site_id
        self._finger_joints = simulator.robots[0]._ref_gripper_joint_pos_indexes
        self._obstacles: tuple[float, Boxes] | None = None

    # Gripper

    @cached_property
    def shoulder(self) -> Vector:
        """Position of the arm's second joint [m], which does not move."""
        return self.data.xanchor[self.model.joint("robot0_joint2").id].copy()

    @property
    def gripper_position(self) -> Vector:
        """Position of the grip site [m]."""
        return self.data.site_xpos[self._gripper_site].copy()

    @property
    def world_from_gripper(self) -> Matrix:
        """Orientation of the grip site."""
        return self.data.site_xmat[self._gripper_site].reshape(3, 3).copy()

    @property
    def gripper_yaw(self) -> float:
        """Yaw [rad] of the closing axis, 0 at the home pose."""
        closing = self.world_from_gripper[:, 0]
        return float(np.arctan2(-closing[0], closing[1]))

    @property
    def gripper_speed(self) -> float:
        """Speed of the grip site [m/s]."""
        site = self.model.site(self._gripper_site).name
        return float(np.linalg.norm(self.simulator.sim.data.get_site_xvelp(site)))

    @property
    def gripper_width(self) -> float:
        """Distance between the fingers [m], about 0.077 when open."""
        first, second = self.data.qpos[self._finger_joints]
        return float(first - second)

    def pads_touching(self, name: str) -> int:
        """Return how many of the two finger pads touch the object."""
        owner = self.names.index(name)
        contacts = self.data.contact
        touched = set()
        pairs = np.stack([contacts.geom1, contacts.geom2], axis=1)
        for pad, other in np.concatenate([pairs, pairs[:, ::-1]]):
            if pad in self._pad_geoms and self._owner_of_body[self.model.geom_bodyid[other]] == owner:
                touched.add(int(pad))
        return len(touched)

    # Objects and fixtures

    def position(self, name: str) -> Vector:
        """Return the position of an object's or fixture's origin [m]."""
        return self.data.xpos[self.simulator.obj_body_id[name]].copy()

    def rotation(self, name: str) -> Matrix:
        """Return world_from_object."""
        return self.data.xmat[self.simulator.obj_body_id[name]].reshape(3, 3).copy()

    def speed(self, name: str) -> float:
        """Return the speed of an object's origin [m/s]."""
        body = self.model.body(self.simulator.obj_body_id[name]).name
        return float(np.linalg.norm(self.simulator.sim.data.get_body_xvelp(body)))

    def site(self, name: str) -> Vector:
        """Return the position of a site [m]."""
        return self.simulator.sim.data.get_site_xpos(name).copy()

    def is_body(self, name: str) -> bool:
        """Say whether the name is an object or a fixture (otherwise it is a region)."""
        return name in self.simulator.obj_body_id

    def owner_of_region(self, name: str) -> str:
        """Return the object or fixture that a region belongs to, the name itself if it is no region."""
        return name if self.is_body(name) else self.simulator.object_sites_dict[name].parent_name

    def bounds(self, name: str, world_from_frame: Matrix | None = None) -> tuple[Vector, Vector]:
        """Return lower and upper corner [m] relative to an object's origin, in a frame's axes (default: world)."""
        axes = np.eye(3) if world_from_frame is None else world_from_frame
        points = (self.boxes_of(name).lattice().reshape(-1, 3) - self.position(name)) @ axes
        return points.min(axis=0), points.max(axis=0)

    def top(self, name: str) -> float:
        """Return the world height of an object's highest point [m]."""
        return float(self.position(name)[2] + self.bounds(name)[1][2])

    def bottom(self, name: str) -> float:
        """Return the world height of an object's lowest point [m]."""
        return float(self.position(name)[2] + self.bounds(name)[0][2])

    def center(self, name: str) -> Vector:
        """Return the middle of an object's bounds, which its origin need not be [m]."""
        rotation = self.rotation(name)
        low, high = self.bounds(name, rotation)
        return self.position(name) + rotation @ ((low + high) / 2)

    def joint(self, name: str) -> float:
        """Return the value of a hinge or slide joint [rad or m]."""
        return float(self.data.qpos[self.model.joint(name).qposadr[0]])

    def joint_anchor(self, name: str) -> Vector:
        """Return a point on a joint's axis [m]."""
        return self.data.xanchor[self.model.joint(name).id].copy()

    def parts(self, body: str) -> Boxes:
        """Return the collision boxes of one body, for instance a drawer."""
        return self.obstacles()[self.model.geom_bodyid[self._geoms] == self.model.body(body).id]

    def holds(self, *predicate: str) -> bool:
        """Return whether a goal predicate is true, given as its words: `on`, `bowl_1`, `plate_1`."""
        return bool(self.simulator._eval_predicate(list(predicate)))

    # Obstacles

    def obstacles(self) -> Boxes:
        """Return the boxes of all collision geoms but the robot's, as of the current simulation time."""
        if self._obstacles is None or self._obstacles[0] != self.data.time:
            rotations = self.data.geom_xmat[self._geoms].reshape(-1, 3, 3).copy()
            local = self.model.geom_aabb[self._geoms]
            centers = self.data.geom_xpos[self._geoms] + np.einsum("nij,nj->ni", rotations, local[:, :3])
            self._obstacles = (float(self.data.time), Boxes(centers, rotations, local[:, 3:]))
        return self._obstacles[1]

    def boxes_of(self, name: str) -> Boxes:
        """Return the collision boxes of an object or fixture."""
        return self.obstacles()[self.owned_by(name)]

    def obstacles_without(self, *names: str) -> Boxes:
        """Return the obstacles but those of the named objects and fixtures."""
        return self.obstacles()[~self.owned_by(*names)]

    def owned_by(self, *names: str) -> Mask:
        """Return a mask over `obstacles()` that is true where a box belongs to one of the names."""
        return np.isin(self._owners, [self.names.index(name) for name in names])

    @cached_property
    def _pad_geoms(self) -> set[int]:
        return {self.model.geom(name).id for name in PADS}

    @cached_property
    def _owner_of_body(self) -> Indices:
        """Index into `names` of the object each body is part of, -1 for none."""
        roots = {body: index for index, body in enumerate(self.simulator.obj_body_id.values())}
        owners = np.full(self.model.nbody, -1)
        for body in range(1, self.model.nbody):  # parents come before children
            owners[body] = roots.get(body, owners[self.model.body_parentid[body]])
        return owners

    @cached_property
    def _geoms(self) -> Indices:
        """Indices of the collision geoms that are neither planes nor the robot's."""
        model = self.model
        robot = np.array([model.body(body).name.startswith(ROBOT_PREFIXES) for body in range(model.nbody)])
        collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        return np.flatnonzero(collides & (model.geom_type != PLANE) & ~robot[model.geom_bodyid])

    @cached_property
    def _owners(self) -> Indices:
        """Index into `names` of the object each obstacle belongs to, -1 for none."""
        return self._owner_of_body[self.model.geom_bodyid[self._geoms]]
