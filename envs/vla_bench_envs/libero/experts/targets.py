"""Where an object has to go for a goal predicate to hold."""

import numpy as np

from vla_bench_envs.libero.experts.geometry import Vector
from vla_bench_envs.libero.experts.scene import Scene

PLATE_THICKNESS_M = 0.006
BOWL_THICKNESS_M = 0.012
BURNER_HEIGHT_M = 0.020
"""Of the stove's burner over the cook region's site."""
DRAWER_FLOOR_M = 0.004
"""From the middle of a drawer's floor box to its surface."""
BASKET_RIM_GAP_M = 0.010
"""Of the palm over the basket's rim when it lets go."""


def support(scene: Scene, target: str) -> Vector:
    """Return the point [m] of a goal predicate's second argument on which to set an object down."""
    if scene.is_body(target):
        point = scene.position(target)
        if "plate" in target:
            point[2] += PLATE_THICKNESS_M
        elif "bowl" in target:
            point[2] += BOWL_THICKNESS_M
        else:
            point[2] = scene.top(target)
        return point
    if is_drawer(target):
        return drawer_floor(scene, target)
    point = scene.site(target)
    if "cook_region" in target:
        point[2] += BURNER_HEIGHT_M
    return point


def is_drawer(region: str) -> bool:
    """Say whether the region is the inside of a cabinet's drawer."""
    return "cabinet" in region and region.endswith(("_top_region", "_middle_region", "_bottom_region"))


def drawer_of(region: str) -> tuple[str, str]:
    """Return cabinet and drawer of a region: wooden_cabinet_1 and top for wooden_cabinet_1_top_region."""
    cabinet, which, _ = region.rsplit("_", 2)
    return cabinet, which


def drawer_floor(scene: Scene, region: str) -> Vector:
    """Return the middle of a drawer's floor [m], wherever the drawer is."""
    cabinet, which = drawer_of(region)
    centers = scene.parts(f"{cabinet}_cabinet_{which}").centers
    floor = centers[np.argmin(centers[:, 2])].copy()
    floor[2] += DRAWER_FLOOR_M
    return floor


def above_basket(scene: Scene, name: str, region: str) -> Vector:
    """Return where to let a held object go into a basket: as low as the palm over the rim allows [m]."""
    basket = scene.owner_of_region(region)
    hanging = scene.gripper_position[2] - scene.bottom(name)
    point = scene.site(region)
    point[2] = max(scene.bottom(basket) + 0.01, scene.top(basket) - BASKET_RIM_GAP_M - hanging)
    return point
