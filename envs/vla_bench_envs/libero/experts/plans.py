"""From a task's goal predicates to a plan: which skills, in which order."""

from collections.abc import Sequence
from functools import partial

from vla_bench.errors import VlaBenchError
from vla_bench_envs.libero.experts.fixtures import close_drawer, close_microwave, open_drawer, push_plate, turn_knob
from vla_bench_envs.libero.experts.insertions import insert_book, insert_mug
from vla_bench_envs.libero.experts.motion import Arm, Motion, SkillFailed
from vla_bench_envs.libero.experts.placements import (
    lean_on_rack,
    put,
    put_both,
    put_in_basket,
    put_in_drawer,
    put_on_table,
)
from vla_bench_envs.libero.experts.skills import Skill
from vla_bench_envs.libero.experts.targets import drawer_of, is_drawer

Predicate = Sequence[str]
"""As LIBERO parses it: ("on", "bowl_1", "plate_1"), ("open", "cabinet_1_top_region")."""

PHASES = {"open": 0, "turnon": 0, "on": 2, "in": 2, "close": 3}
"""Drawers open and stoves go on before things are put down, doors close after it."""
TABLE_PHASE = 1
"""Low things on the table come before what is put on plates: the hand would hit a mug beside them."""
COVERED = (
    "On and In for things picked from above; Open and Close for drawers; Turnon for stoves; Close for microwaves; "
    "the book into the caddy, the mug into the microwave, the plate pushed over the table"
)


class NoExpertError(VlaBenchError):
    """Refuse a task for which there is no scripted expert."""

    def __init__(self, task: str, predicate: Predicate) -> None:
        super().__init__(
            f"no scripted expert for {task}: its goal ({' '.join(predicate)}) is of no kind that the skills cover. "
            f"Covered: {COVERED}. All tasks of libero-spatial, libero-object, libero-goal and libero-10 are."
        )


def plan_for(task: str, goal: Sequence[Predicate]) -> Skill:
    """Return the plan for a goal: a function from an arm to a generator of actions.

    Predicates that hold when their turn comes are skipped, so that a plan that failed can be run again.

    Args:
        task: The task's name, for the error message.
        goal: Its predicates; all must hold at the end.

    Raises:
        NoExpertError: If a predicate is of no known kind.
    """
    predicates = sorted((_lower_case(predicate) for predicate in goal), key=_phase)
    steps: list[tuple[Skill, tuple[Predicate, ...]]] = []
    while predicates:
        predicate = predicates.pop(0)
        partners = [other for other in predicates if _share_burner(predicate, other)]
        if partners:
            predicates.remove(partners[0])
            skill = put_both((predicate[1], partners[0][1]), predicate[2])
            steps.append((skill, (predicate, partners[0])))
        else:
            steps.append((_skill_for(task, predicate), (predicate,)))
    return _sequence(steps)


def _sequence(steps: Sequence[tuple[Skill, tuple[Predicate, ...]]]) -> Skill:
    """Return the plan that runs each skill whose predicates do not all hold yet, and checks that they do after it."""

    def plan(arm: Arm) -> Motion[None]:
        for skill, predicates in steps:
            if not _all_hold(arm, predicates):
                yield from skill(arm)
                yield from arm.wait(partial(_all_hold, arm, predicates))
                if not _all_hold(arm, predicates):
                    raise SkillFailed(f"({' '.join(predicates[0])}) does not hold after its skill")

    return plan


def _all_hold(arm: Arm, predicates: Sequence[Predicate]) -> bool:
    """Say whether all predicates are true now."""
    return all(arm.scene.holds(*predicate) for predicate in predicates)


def _skill_for(task: str, predicate: Predicate) -> Skill:
    """Return the skill that makes one predicate true."""
    match predicate:
        case ["turnon", stove]:
            return turn_knob(stove)
        case ["open", region] if is_drawer(region):
            return open_drawer(*drawer_of(region), roll_back=False)
        case ["close", region] if is_drawer(region):
            return close_drawer(*drawer_of(region))
        case ["close", fixture] if "microwave" in fixture:
            return close_microwave(fixture)
        case ["on" | "in" as relation, name, target]:
            return _placement_for(relation, name, target)
    raise NoExpertError(task, predicate)


def _placement_for(relation: str, name: str, target: str) -> Skill:
    """Return the skill that puts an object where an `on` or `in` predicate wants it."""
    if is_drawer(target):
        return put_in_drawer(name, target)
    if "basket" in target:
        return put_in_basket(name, target)
    if "caddy" in target:
        return insert_book(name, target)
    if "microwave" in target and relation == "in":
        return insert_mug(name, target)
    if "wine_rack" in target:
        return lean_on_rack(name, target)
    if "table" in target:
        return push_plate(name, target) if "plate" in name else put_on_table(name, target)
    return put(name, target, relation)


def _phase(predicate: Predicate) -> int:
    """Return when to see to a predicate."""
    is_table = predicate[0] == "on" and "table" in predicate[2]
    return TABLE_PHASE if is_table else PHASES.get(predicate[0], TABLE_PHASE)


def _share_burner(first: Predicate, second: Predicate) -> bool:
    """Say whether two predicates put things on the same burner."""
    return first[0] == second[0] == "on" and first[2] == second[2] and "cook_region" in first[2]


def _lower_case(predicate: Predicate) -> list[str]:
    """Return the predicate with its name, but not its arguments, in lower case."""
    return [predicate[0].lower(), *predicate[1:]]
