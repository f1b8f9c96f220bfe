"""An evaluation, decided before it starts: what is played, in which order, by which rubric, at which margin."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.plan import ResolvedPlan, RunPlan
from vla_bench.types import Cell, Task
from vla_bench_envs.robot import installation
from vla_bench_envs.robot.evaluation.seal import alias

FEWEST_METHODS = 2
"""The reference and another one."""

MOST_MILESTONES, MOST_FAILURES = 9, 8
"""As many as there are keys for them on the operator page."""

LONGEST = 40
"""Characters of a milestone or a failure code."""

LATER_FIELDS = ("milestones", "failures", "robot")
"""Fields that plans of the first version do not have."""

FIRST_ID, N_IDS = 1_000, 9_000
"""Trials are called by numbers of four digits; where more are needed, of more."""


@dataclass(frozen=True)
class Trial:
    """One method on one start, under a name that says nothing of the method."""

    id: str
    """Drawn at random: neither its place nor its block can be read from it."""

    number: int
    """Place in the order of playing, from 1."""

    block: int
    """Trials of one block share their start; every method plays it once."""

    cell: Cell

    alias: str
    """Sealed name of the method; nobody is shown it."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Everything that decides an evaluation, besides the robot. Its hash is registered before the first trial."""

    suite: str
    protocol: str
    policy: str

    methods: tuple[str, ...]
    """In the order in which they were given; the order says nothing of the aliases."""

    reference: str
    """Method that the others are compared with."""

    tasks: tuple[int, ...]
    """Indices in the suite's standard order; played task by task, since a change of objects is dear."""

    starts: int
    """Initial conditions of a task: 0 to this, exclusive."""

    repetitions: int
    """How often each start is played by each method."""

    margin: float
    """Success that a method may lose and still be non-inferior, as a fraction."""

    seed: int
    """Of the policy, of the order of starts, and of the order of methods within a block."""

    rubric: str
    """When a trial is a success, as the operator reads it."""

    exclusion: str
    """When a trial is not counted and played again."""

    seal_sha256: str
    """Commitment to the map of aliases to methods."""

    milestones: tuple[str, ...] = ()
    """Parts of a task that a rater ticks as they are reached; a success has reached all."""

    failures: tuple[str, ...] = ()
    """Codes of which a rater may give one to a failure: what went wrong."""

    robot: dict[str, Any] | None = None
    """Suite of a robot file, as `Installation.facts`; None for a suite that is installed."""

    @property
    def sha256(self) -> str:
        """Return the hash of all fields but empty later ones: a plan has the hash that it had before there were any."""
        stated = {name: value for name, value in asdict(self).items() if value or name not in LATER_FIELDS}
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "EvaluationPlan":
        """Return the plan that `asdict` wrote.

        Raises:
            KeyError, TypeError: If a field is missing or unknown.
        """
        lists: dict[str, Any] = {name: tuple(found[name]) for name in ("methods", "tasks")}
        lists |= {name: tuple(found.get(name, ())) for name in ("milestones", "failures")}
        return cls(**(found | lists))

    def resolve(self) -> ResolvedPlan:
        """Return the plan as every run has it, with the methods' names.

        Raises:
            UnknownNameError: For a suite, policy, method or protocol that does not exist.
            OptionError: For tasks or numbers out of range.
        """
        if self.robot is not None:
            installation.register(self.robot)
        plan = RunPlan(
            suite=self.suite,
            policy=self.policy,
            methods=self.methods,
            episodes=self.starts * self.repetitions,
            tasks=self.tasks,
            protocol=self.protocol,
            seed=self.seed,
        ).resolve()
        self._check(plan.tasks)
        return plan

    def blind(self) -> ResolvedPlan:
        """Return the plan as every run has it, with aliases for methods."""
        return replace(self.resolve(), methods=tuple(alias(place) for place in range(len(self.methods))))

    def trials(self) -> list[Trial]:
        """Return all trials in the order in which they are played: blocks at random within a task, methods in each."""
        plan = self.blind()
        turns = [(block, cell, name) for block, cell in enumerate(self._blocks()) for name in plan.turns(cell)]
        rng = np.random.default_rng(int(self.seal_sha256, 16))
        ids = FIRST_ID + rng.permutation(max(N_IDS, len(turns)))
        return [
            Trial(f"T{ids[index]}", index + 1, block, cell, name) for index, (block, cell, name) in enumerate(turns)
        ]

    def _blocks(self) -> Iterator[Cell]:
        for task in self.tasks:
            n_blocks = self.starts * self.repetitions
            for index in np.random.default_rng([self.seed, task]).permutation(n_blocks):
                repetition, start = divmod(int(index), self.starts)
                yield Cell(task, start, self.seed + repetition)

    def _check(self, tasks: tuple[Task, ...]) -> None:
        if len(self.methods) < FEWEST_METHODS:
            raise OptionError("--methods", self.methods, "the reference and at least one other")
        if self.reference not in self.methods:
            raise OptionError("--reference", self.reference, f"one of the methods: {', '.join(self.methods)}")
        most = min(task.n_initial_states for task in tasks)
        if not 1 <= self.starts <= most:
            raise OptionError("--starts", self.starts, f"1 to {most}, the starts of these tasks")
        if self.repetitions < 1:
            raise OptionError("--repetitions", self.repetitions, "at least 1")
        for option, words, most in (
            ("--milestones", self.milestones, MOST_MILESTONES), ("--failures", self.failures, MOST_FAILURES),
        ):  # fmt: skip
            if len(words) > most or len(set(words)) < len(words) or not all(0 < len(word) <= LONGEST for word in words):
                raise OptionError(option, words, f"at most {most} different ones of 1 to {LONGEST} characters")
