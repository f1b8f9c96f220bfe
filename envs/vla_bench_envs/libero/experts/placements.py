"""Skills that make one `On` or `In` predicate true: pick, carry, set down, check."""

import numpy as np

from vla_bench_envs.libero.experts import targets
from vla_bench_envs.libero.experts.fixtures import open_drawer
from vla_bench_envs.libero.experts.geometry import UP, half_turn, horizontal
from vla_bench_envs.libero.experts.grasps import Errand
from vla_bench_envs.libero.experts.motion import Arm, Motion, SkillFailed
from vla_bench_envs.libero.experts.skills import DROP_M, Skill, carry, let_go, pick, place

BASKET_RADIUS_M = 0.09
"""Half width of the swath that is cleared on the way to a basket."""
DRAWER_AJAR_M = -0.10
"""Joint value above which a drawer has to be pulled before something fits in."""
DRAWER_FILLING_M = -0.122
"""Joint value to pull a drawer to that is to be filled: enough for a bowl, and quicker than all the way."""
DRAWER_FRONT_M = 0.027
"""From the middle of a drawer's floor towards its front, where no upper drawer's bar is above the hand."""
DRAWER_DROP_M = 0.03
POT_SPACING_M = (0.04, -0.045)
"""Along world x from the middle of the burner, for two pots that share it."""
BOTTLE_RADIUS_M = 0.05
"""Half width of the swath that is cleared on the way to the rack."""
TIP_BACK_M = 0.08
"""How far the neck is moved towards the rack, which tips the bottle beyond its edge."""
TIP_DOWN_M = 0.02
ATTEMPTS = 2


def put(name: str, target: str, relation: str = "on", drop_m: float = DROP_M) -> Skill:
    """Put an object on or in something; once more if it missed."""

    def skill(arm: Arm) -> Motion[None]:
        for _ in range(ATTEMPTS):
            yield from _pick_for(arm, name, target, drop_m)
            yield from place(arm, name, targets.support(arm.scene, target), drop_m)
            if arm.scene.holds(relation, name, target):
                return
        raise SkillFailed(f"{name} missed {target}")

    return skill


def _pick_for(arm: Arm, name: str, target: str, drop_m: float) -> Motion[None]:
    """Pick an object up with a grasp that also has room at the target."""
    scene = arm.scene
    goal = targets.support(scene, target)
    goal[2] += drop_m + scene.position(name)[2] - scene.bottom(name)
    owner = scene.owner_of_region(target)
    allowed = () if "cabinet" in owner else (owner,)
    yield from pick(arm, name, Errand(goal, allowed))


def put_in_basket(name: str, region: str) -> Skill:
    """Let an object go inside a basket, as low as the rim lets the hand; once more if it missed."""

    def skill(arm: Arm) -> Motion[None]:
        for _ in range(ATTEMPTS):
            yield from pick(arm, name)
            point = targets.above_basket(arm.scene, name, region)
            yield from place(arm, name, point, drop_m=0.0, radius_m=BASKET_RADIUS_M)
            if arm.scene.holds("in", name, region):
                return
        raise SkillFailed(f"{name} missed {region}")

    return skill


def put_on_table(name: str, region: str) -> Skill:
    """Put an object that stands on a table onto a region of the same table."""

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        target = scene.site(region)
        target[2] = scene.bottom(name)
        above_bottom = scene.position(name)[2] - scene.bottom(name)
        yield from pick(arm, name, Errand(target + (DROP_M + above_bottom) * UP))
        yield from place(arm, name, target)

    return skill


def put_both(names: tuple[str, str], region: str) -> Skill:
    """Put two pots side by side on one burner, the one at larger x first."""

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        ordered = sorted(names, key=lambda name: -scene.position(name)[0])
        for name, shift in zip(ordered, POT_SPACING_M, strict=True):
            if not scene.holds("on", name, region):
                yield from pick(arm, name)
                yield from place(arm, name, targets.support(scene, region) + np.array([shift, 0.0, 0.0]))

    return skill


def lean_on_rack(bottle: str, region: str) -> Skill:
    """Stand a bottle behind the rack's stopper and tip it back until it leans on the slope."""

    def skill(arm: Arm) -> Motion[None]:
        scene = arm.scene
        site = scene.site(region)
        yield from pick(arm, bottle)
        goal = yield from carry(arm, bottle, site, 0.0, BOTTLE_RADIUS_M)
        if goal is None:
            raise SkillFailed(f"{bottle} was dropped")
        uphill = horizontal(scene.position(scene.owner_of_region(region)) - site)
        tipped = scene.gripper_position + TIP_BACK_M * uphill - TIP_DOWN_M * UP
        yield from arm.move(tipped, scene.world_from_gripper, 0.01, np.inf, speed=0.5, max_queries=20)
        yield from let_go(arm, scene.gripper_position)

    return skill


def put_in_drawer(name: str, region: str) -> Skill:
    """Put an object into a drawer; pull the drawer out first if it is shut."""
    cabinet, which = targets.drawer_of(region)

    def skill(arm: Arm) -> Motion[None]:
        if arm.scene.joint(f"{cabinet}_{which}_level") > DRAWER_AJAR_M:
            yield from open_drawer(cabinet, which, until_m=DRAWER_FILLING_M)(arm)
            yield from put(name, region, "in", DRAWER_DROP_M)(arm)
        else:
            yield from _fill_open_drawer(arm, name, region)

    return skill


def _fill_open_drawer(arm: Arm, name: str, region: str) -> Motion[None]:
    """Put an object into an open drawer, held along the drawer's width, near its front."""
    scene = arm.scene
    outward = -scene.rotation(scene.owner_of_region(region))[:, 1]
    yaw = half_turn(float(np.arctan2(-outward[0], outward[1])) + np.pi / 2)
    yield from pick(arm, name, Errand(preferred_yaw_rad=yaw))
    target = targets.drawer_floor(scene, region) + DRAWER_FRONT_M * outward
    yield from place(arm, name, target, drop_m=DRAWER_DROP_M)
