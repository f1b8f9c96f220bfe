"""The LIBERO suites and their LIBERO-PRO variants: names, tasks, sentences, horizons. Starts no simulator."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.libero.protocols import CONTROL_HZ, PROTOCOLS
from vla_bench_envs.libero.startup import libero_path, task_names
from vla_bench_envs.tasks import find_task

if TYPE_CHECKING:
    from vla_bench_envs.libero.demonstrations.source import LiberoSource
    from vla_bench_envs.libero.environment import LiberoEnv

HORIZONS = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
"""Control steps, settling excluded. Source: openvla, `experiments/robot/libero/run_libero_eval.py` (each is a little
more than the longest demonstration: 193, 254, 270, 505 and 373 steps). openvla-oft uses the same numbers; lerobot uses
280 for spatial, which is the protocol `lerobot`. LIBERO-PRO variants take their parent's."""

N_INITIAL_STATES = 50
"""Official initial states of every task. Source: LIBERO's `init_files`, read by a test."""

VARIANTS: dict[str, tuple[str, Literal["file name", "problem file"]]] = {
    "language": ("lan", "problem file"),
    "object": ("object", "file name"),
    "swap": ("swap", "file name"),
    "task": ("task", "problem file"),
}
"""LIBERO-PRO's perturbations: suffix of its folder, and where the sentence is.

The variants keep the file names of their parents. `language` and `task` change what is asked, so only the problem file
(BDDL) has the right sentence. `object` and `swap` change looks and places of things, so the parent's sentence stays.
"""

_LANGUAGE = re.compile(r"\(:language\s+(.*?)\s*\)", re.DOTALL)
_SCENE_PREFIX = re.compile(r"^[A-Z][A-Z_]*SCENE\d+_")


@dataclass(frozen=True)
class LiberoSuite:
    """One versioned set of LIBERO tasks; satisfies `vla_bench.suite.Suite`."""

    name: str
    """With version, for example `libero-spatial@1`."""

    gym_id: str
    """Under which Gymnasium knows the environment."""

    folder: str
    """LIBERO's own name of the suite, for example `libero_spatial_lan`."""

    horizon: int
    """Control steps of an episode unless the protocol says otherwise."""

    dataset: str
    """Published demonstrations, by the name of the standard suite that this one is or was made from."""

    sentence: Literal["file name", "problem file"] = "file name"
    """Where the instruction is read. Published loops take it from the file's name, which for the standard suites
    differs from the problem file's (`pick up the black bowl` against `Pick the akita black bowl`)."""

    default_protocol: str = "reference"
    """Protocol that is used when none is named."""

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in standard order (`task_order_index=0`)."""
        return _tasks(self)

    def task(self, key: int | str) -> Task:
        """Return the task at a position in the standard order, or of a name.

        Raises:
            OptionError: If the position is out of range.
            UnknownNameError: If no task has that name.
        """
        return find_task(self.name, self.tasks(), key)

    def problem_file(self, task: Task) -> Path:
        """Return the path of the task's BDDL file."""
        return libero_path("bddl_files") / self.folder / f"{task.name}.bddl"

    def initial_states(self, task: Task) -> np.ndarray:
        """Return the official initial states (n, 1 + nq + nv): time [s], positions and velocities of MuJoCo."""
        path = libero_path("init_states") / self.folder / f"{task.name}.pruned_init.npz"
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["states"], dtype=np.float64)

    def protocols(self) -> dict[str, Protocol]:
        """Return the presets by name."""
        return dict(PROTOCOLS)

    def make(self, protocol: Protocol, images: Literal["lazy", "eager"] = "lazy") -> "LiberoEnv":
        """Return an environment; the simulator starts at its first `reset`."""
        from vla_bench_envs.libero.environment import LiberoEnv

        return LiberoEnv(suite=self.name, protocol=protocol, images=images)

    def fingerprint(self, protocol: Protocol) -> dict[str, str]:
        """Return hashes of physics and pixels, and versions; compiles and steps the first task."""
        from vla_bench_envs.libero.fingerprint import fingerprint

        return fingerprint(self.name, protocol).to_dict()

    def demonstrations(self) -> "LiberoSource":
        """Return where demonstrations of its tasks come from."""
        from vla_bench_envs.libero.demonstrations.source import LiberoSource

        return LiberoSource()


@cache
def _tasks(suite: LiberoSuite) -> tuple[Task, ...]:
    return tuple(
        Task(
            suite=suite.name,
            index=index,
            name=name,
            instruction=_instruction(suite, name),
            horizon=suite.horizon,
            n_initial_states=N_INITIAL_STATES,
            control_hz=CONTROL_HZ,
            dataset=suite.dataset,
        )
        for index, name in enumerate(task_names(suite.folder))
    )


def _instruction(suite: LiberoSuite, name: str) -> str:
    """Return the sentence of a task, in lower case as published loops ask it."""
    if suite.sentence == "file name":
        return sentence_of_file_name(name)
    return sentence_of_problem((libero_path("bddl_files") / suite.folder / f"{name}.bddl").read_text(encoding="utf-8"))


def sentence_of_file_name(name: str) -> str:
    """Return `turn on the stove` for `turn_on_the_stove` and for `KITCHEN_SCENE3_turn_on_the_stove`."""
    return _SCENE_PREFIX.sub("", name).replace("_", " ").lower()


def sentence_of_problem(text: str) -> str:
    """Return what the `(:language ...)` of a BDDL text says, in lower case."""
    found = _LANGUAGE.search(text)
    if found is None:
        raise OptionError("problem file", text[:60], "a BDDL text with a (:language ...) entry")
    return " ".join(found.group(1).split()).lower()


def _standard(family: str) -> LiberoSuite:
    return LiberoSuite(
        name=f"libero-{family}@1",
        gym_id=f"vla_bench/Libero{family.capitalize()}-v0",
        folder=f"libero_{family}",
        horizon=HORIZONS[family],
        dataset=f"libero_{family}",
    )


def _perturbed(family: str, variant: str) -> LiberoSuite:
    suffix, sentence = VARIANTS[variant]
    return LiberoSuite(
        name=f"libero-{family}-{variant}@1",
        gym_id=f"vla_bench/Libero{family.capitalize()}{variant.capitalize()}-v0",
        folder=f"libero_{family}_{suffix}",
        horizon=HORIZONS[family],
        dataset=f"libero_{family}",
        sentence=sentence,
    )


SUITES: dict[str, LiberoSuite] = {
    suite.name: suite
    for suite in (
        *(_standard(family) for family in HORIZONS),
        *(_perturbed(family, variant) for family in ("spatial", "object", "goal", "10") for variant in VARIANTS),
    )
}
"""All suites by name; the entry point group `vla_bench.suites` names this mapping."""


def find_suite(name: str) -> LiberoSuite:
    """Return the LIBERO suite of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in SUITES:
        raise UnknownNameError("LIBERO suite", name, SUITES)
    return SUITES[name]
