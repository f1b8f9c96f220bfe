"""A run, decided before it starts."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import get_args

import numpy as np

from vla_bench import registry
from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.protocol import Protocol
from vla_bench.realtime.latency import MEASURED, latency
from vla_bench.realtime.waiting import Realtime, Waiting
from vla_bench.suite import Suite
from vla_bench.types import Cell, Task


@dataclass(frozen=True)
class RunPlan:
    """Everything that decides a run's numbers, except the machine. Its hash is the run's name."""

    suite: str = "libero-object@1"
    """Suite of tasks, with its version; `vla-bench list` shows all."""

    policy: str = "expert"
    """Policy that is accelerated, as `name` or `name:argument,key=value`."""

    methods: tuple[str, ...] = ("full",)
    """Methods to compare, as `name` or `name:argument`; `full` is the reference of every speed-up."""

    episodes: int = 10
    """Per task and method; episode i starts from the suite's initial state i modulo their number."""

    tasks: tuple[int, ...] = ()
    """Indices of the tasks in the suite's standard order; none means all."""

    protocol: str = ""
    """Preset of the suite that says how episodes are played and pictures drawn; none means the suite's default."""

    seed: int = 0
    """Seeds the policy, the methods, and the order in which the methods take their turns."""

    timed: bool = True
    """Whether latency is measured: nothing else runs then. A plan that is not timed measures success alone, and may be
    played by several workers at once."""

    realtime: str = ""
    """Latency in the loop, on a clock of its own: ms for every answer, the directory of a timed run whose times are
    drawn, a device's TOML file (device, fixed_ms, gflop_per_s, source), or `measured` here and now, in a timed plan.
    None gives answers at once."""

    waiting: Waiting = "hold"
    """What the arm does meanwhile: hold, repeat the last action, continue with the chunk before (the policy is asked
    before it ends), or overlap: the same, and what the new chunk meant for the time that has passed is left out."""

    def resolve(self) -> "ResolvedPlan":
        """Return the plan with every name checked and every default spelled out.

        Raises:
            UnknownNameError: For a suite, policy, method or protocol that does not exist.
            OptionError: For tasks or numbers out of range, or for time that is measured where it means nothing.
        """
        suite = registry.suite(self.suite)
        protocols = suite.protocols()
        name = self.protocol or suite.default_protocol
        if name not in protocols:
            raise UnknownNameError(f"protocol of {suite.name!r}", name, protocols)
        checked_policy(self.policy)
        if self.episodes < 1:
            raise OptionError("--episodes", self.episodes, "at least 1")
        methods = checked_methods(self.methods)
        if self.seed < 0:
            raise OptionError("--seed", self.seed, "an integer of at least 0")
        tasks = self._chosen(suite)
        if self.realtime == MEASURED and not self.timed:
            expected = (
                "milliseconds, a timed run or a device's file in a plan that is not timed: what runs at once has no"
            )
            raise OptionError("--realtime", self.realtime, f"{expected} latency")
        realtime = Realtime(latency(self.realtime), self.waiting) if self.realtime else None
        if self.waiting not in get_args(Waiting):
            raise OptionError("--waiting", self.waiting, f"one of {', '.join(get_args(Waiting))}")
        return ResolvedPlan(
            suite, protocols[name], tasks, self.policy, methods, self.episodes, self.seed, self.timed, realtime
        )

    def _chosen(self, suite: Suite) -> tuple[Task, ...]:
        tasks = suite.tasks()
        wrong = [index for index in self.tasks if not 0 <= index < len(tasks)]
        if wrong:
            raise OptionError("--tasks", wrong[0], f"an index from 0 to {len(tasks) - 1} of {suite.name!r}")
        if len(set(self.tasks)) < len(self.tasks):
            raise OptionError("--tasks", self.tasks, "each index once")
        return tuple(tasks[index] for index in self.tasks) if self.tasks else tasks


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan in which nothing is left to a default."""

    suite: Suite
    protocol: Protocol
    tasks: tuple[Task, ...]
    policy: str
    methods: tuple[str, ...]
    episodes: int
    seed: int
    timed: bool = True
    realtime: Realtime | None = None

    def to_dict(self) -> dict[str, object]:
        """Return what is hashed and written beside the results."""
        return {
            "suite": self.suite.name,
            "protocol": {**asdict(self.protocol), "hash": self.protocol.hash},
            "tasks": [task.index for task in self.tasks],
            "policy": self.policy,
            "methods": list(self.methods),
            "episodes": self.episodes,
            "seed": self.seed,
            **({} if self.timed else {"timed": False}),
            **self.clock,
        }

    @property
    def clock(self) -> dict[str, str]:
        """Return what latency in the loop is, as plan and conditions write it; empty without any."""
        if self.realtime is None:
            return {}
        return {"realtime": self.realtime.latency.fingerprint, "waiting": self.realtime.waiting}

    @property
    def id(self) -> str:
        """Return the run's name: suite, policy and the first 10 hexadecimal digits of the plan's SHA-256."""
        return run_name(self.suite.name.replace("@", "-v"), self.policy, self.to_dict())

    def cells(self) -> Iterator[Cell]:
        """Yield every start, task by task, since a change of task is dear."""
        for task in self.tasks:
            for episode in range(self.episodes):
                repeat, init_state = divmod(episode, task.n_initial_states)
                yield Cell(task.index, init_state, self.seed + repeat)

    def turns(self, cell: Cell) -> list[str]:
        """Return the methods in the order in which they play `cell`: drawn anew for each, from the plan's seed."""
        rng = np.random.default_rng([self.seed, cell.task, cell.init_state, cell.seed])
        return [self.methods[index] for index in rng.permutation(len(self.methods))]

    @property
    def n_episodes(self) -> int:
        """Return the number of episodes of all methods."""
        return len(self.tasks) * self.episodes * len(self.methods)


def run_name(what: str, policy: str, content: dict[str, object]) -> str:
    """Return the name of a directory of results: what, which policy, and a hash of everything that decides them."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    shown = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in policy)
    return f"{what}_{shown}_{digest[:10]}"


def checked_policy(spec: str) -> None:
    """Refuse a policy that does not exist, by name only: making it may load gigabytes.

    Raises:
        UnknownNameError: If nothing is registered under its name.
    """
    name = spec.strip().partition(":")[0]
    if name not in registry.names("policy"):
        raise UnknownNameError("policy", name, registry.names("policy"))


def checked_methods(specs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the specifications as their methods write them.

    Raises:
        UnknownNameError: If one does not exist.
        OptionError: If there is none, or one twice.
    """
    if not specs:
        raise OptionError("--methods", specs, "at least one, for example full")
    methods = tuple(registry.method(spec).name for spec in specs)
    if len(set(methods)) < len(methods):
        raise OptionError("--methods", specs, "each method once")
    return methods
