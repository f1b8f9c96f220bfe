"""One arm as it stands in one place, as a file that its operator writes: driver, suite of tasks, cameras.

Its limits are a file of their own. Records of the arm bear the suite's name, which is the operator's to choose and to
version; it is part of the protocol's hash, so that no figure mixes two arms by accident.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_bench import registry
from vla_bench_envs.robot.environment import RealRobotEnv
from vla_bench_envs.robot.errors import RobotFileError
from vla_bench_envs.robot.limits import load as load_limits
from vla_bench_envs.robot.suites import CONTROL_HZ, RobotSuite
from vla_bench_envs.robot.tabletop.scene import CAMERAS
from vla_bench_envs.robot.tabletop.tasks import HORIZON_STEPS, N_INITIAL_STATES, TASKS
from vla_bench_envs.robot.welcome import MAX_IMAGE_PX, MIN_IMAGE_PX

SIMULATED_DRIVERS = ("sim", "sim-lockstep")
"""Drivers whose objects, pictures and tasks are the tabletop's."""

SUITE_NAME = re.compile(r"[a-z0-9][a-z0-9-]*@[1-9][0-9]*")
MAX_HZ = 100.0
KEYS = frozenset({"suite", "driver", "limits", "control_hz", "image_size_px", "options", "cameras", "tasks"})
TASK_KEYS = {"name": str, "instruction": str, "horizon_steps": int, "n_starts": int}


@dataclass(frozen=True)
class Installation:
    """What a robot file states."""

    driver: str
    options: Mapping[str, Any]
    """Of the driver."""

    limits: Path
    cameras: Mapping[str, Mapping[str, Any]]
    """Where each camera's pictures come from, by the name under which a policy sees it."""

    facts: dict[str, Any]
    """What a plan keeps of it: suite, tasks, names of cameras, size of pictures, rate, a simulated arm's limits."""

    @property
    def suite(self) -> RobotSuite:
        """Return the suite of its tasks."""
        return RobotSuite.from_facts(self.facts)


def load(path: Path) -> Installation:
    """Return what a robot file states.

    Raises:
        RobotFileError: If it cannot be read, or states what is incomplete, unknown or contradictory.
        LimitsError: If it is a simulated arm's, and so are its limits.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as caught:
        raise RobotFileError(path, f"cannot be read ({caught})") from caught
    problem = _problem(found)
    if problem:
        raise RobotFileError(path, problem)
    driver, cameras = found["driver"], found["cameras"]
    simulated = driver in SIMULATED_DRIVERS
    limits = path.parent / found["limits"]
    facts = {
        "suite": found["suite"],
        "control_hz": float(found.get("control_hz", CONTROL_HZ)),
        "image_size_px": int(found.get("image_size_px", 224)),
        "cameras": list(cameras),
        "simulated": simulated,
        "scene": {name: source["scene"] for name, source in cameras.items()} if simulated else {},
        "limits": asdict(load_limits(limits)) if simulated else {},
        "tasks": _tabletop() if simulated else found["tasks"],
    }
    facts = json.loads(json.dumps(facts))  # as a plan that was read has them
    if facts["suite"] in registry.suites() and not _is_own(facts):
        raise RobotFileError(path, f"suite is {facts['suite']!r}, which is another suite's name; choose your own")
    return Installation(driver, found.get("options", {}), limits, cameras, facts)


def register(facts: dict[str, Any]) -> None:
    """Make the suite of a robot file known to this process, by its name."""
    if not _is_own(facts):
        registry.register("suite", facts["suite"], RobotSuite.from_facts(facts))


def _is_own(facts: dict[str, Any]) -> bool:
    """Return whether a suite of that name is registered that is this very one."""
    return registry.suites().get(facts["suite"]) == RobotSuite.from_facts(facts)


def _tabletop() -> list[dict[str, Any]]:
    steps_starts = {"horizon_steps": HORIZON_STEPS, "n_starts": N_INITIAL_STATES}
    return [{"name": task.name, "instruction": task.instruction} | steps_starts for task in TASKS]


def _problem(found: dict[str, Any]) -> str | None:
    """Return what is wrong with a file's content, or None."""
    unknown = sorted(found.keys() - KEYS)
    if unknown:
        return f"states {', '.join(unknown)}; known: {', '.join(sorted(KEYS))}"
    for name in ("suite", "driver", "limits"):
        if not isinstance(found.get(name), str):
            return f"states no {name}"
    if not SUITE_NAME.fullmatch(found["suite"]):
        return f"suite is {found['suite']!r}, expected a name with its version, for example 'my-lab-drawer@1'"
    size_px, rate_hz = found.get("image_size_px", 224), found.get("control_hz", CONTROL_HZ)
    if not isinstance(size_px, int) or not MIN_IMAGE_PX <= size_px <= MAX_IMAGE_PX:
        return f"image_size_px is {size_px!r}, expected {MIN_IMAGE_PX} to {MAX_IMAGE_PX}"
    if not isinstance(rate_hz, int | float) or not 0 < rate_hz <= MAX_HZ:
        return f"control_hz is {rate_hz!r}, expected a number above 0, up to {MAX_HZ:g}"
    return _cameras_problem(found) or _tasks_problem(found)


def _cameras_problem(found: dict[str, Any]) -> str | None:
    cameras = found.get("cameras")
    if not isinstance(cameras, dict) or not cameras or not all(isinstance(own, dict) for own in cameras.values()):
        return "states no cameras, as [cameras.NAME] tables"
    simulated = found["driver"] in SIMULATED_DRIVERS
    for name, source in cameras.items():
        if simulated and source.get("scene") not in CAMERAS:
            return f"camera {name!r} of a simulated arm needs scene = one of {', '.join(CAMERAS)}"
        if not simulated and len({"device", "make"} & source.keys()) != 1:
            return f"camera {name!r} needs either device (for OpenCV) or make (package.module:name)"
    return None


def _tasks_problem(found: dict[str, Any]) -> str | None:
    tasks = found.get("tasks")
    if found["driver"] in SIMULATED_DRIVERS:
        return None if tasks is None else "states tasks; those of a simulated arm are the tabletop's"
    if not isinstance(tasks, list) or not tasks:
        return "states no tasks, as [[tasks]] tables"
    for task in tasks:
        if not isinstance(task, dict) or task.keys() != TASK_KEYS.keys():
            return f"a task needs exactly {', '.join(TASK_KEYS)}; found {task!r}"
        wrong = [key for key, kind in TASK_KEYS.items() if type(task[key]) is not kind or not task[key]]
        if wrong or task["horizon_steps"] < 0 or task["n_starts"] < 0:
            return f"a task has {', '.join(wrong) or 'a number below 0'}, expected text and numbers above 0"
        strange = sorted(set(task["instruction"]) - RealRobotEnv.CHARACTERS)
        if strange:
            return f"an instruction has {strange!r}; it may have small letters, digits, spaces and .,'-"
    if len({task["name"] for task in tasks}) < len(tasks):
        return "states two tasks of one name"
    return None
