"""A replay, decided before it starts."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vla_bench.demonstrations.dataset import Dataset
from vla_bench.errors import OptionError
from vla_bench.plan import checked_methods, checked_policy, run_name
from vla_bench.tables import REFERENCE_METHOD


@dataclass(frozen=True)
class ReplayPlan:
    """Which recordings are shown to which methods. Its hash is the replay's name."""

    data: Path
    """Directory of recordings: a LeRobot dataset, for example one that `vla-bench collect` wrote."""

    policy: str = "reference"
    """Policy that is accelerated, as `name` or `name:argument,key=value`."""

    methods: tuple[str, ...] = ("full",)
    """Methods to compare, as `name` or `name:argument`; `full`, from which distances are taken, is always one."""

    episodes: int = 10
    """How many of the held-out recordings, evenly over the dataset; 0 means all of them."""

    indices: tuple[int, ...] = ()
    """Recordings by index instead, held out or not."""

    seed: int = 0
    """Seeds the methods and their turns."""

    @cached_property
    def dataset(self) -> Dataset:
        """Return the recordings.

        Raises:
            NoDatasetError: If there are none.
        """
        return Dataset(self.data)

    def check(self) -> "ReplayPlan":
        """Return the plan with every name checked, the reference among the methods.

        Raises:
            UnknownNameError: For a policy or method that does not exist.
            OptionError: For numbers out of range.
        """
        checked_policy(self.policy)
        methods = (*self.methods, REFERENCE_METHOD) if REFERENCE_METHOD not in self.methods else self.methods
        if self.episodes < 0:
            raise OptionError("--episodes", self.episodes, "a positive number, or 0 for all that are held out")
        if wrong := [index for index in self.indices if not 0 <= index < len(self.dataset)]:
            raise OptionError("--indices", wrong[0], f"indices from 0 to {len(self.dataset) - 1}")
        if self.seed < 0:
            raise OptionError("--seed", self.seed, "an integer of at least 0")
        return ReplayPlan(self.data, self.policy, checked_methods(methods), self.episodes, self.chosen, self.seed)

    @property
    def chosen(self) -> tuple[int, ...]:
        """Return the indices of the recordings that are replayed, in order."""
        if self.indices:
            return tuple(sorted(set(self.indices)))
        held_out = np.flatnonzero(self.dataset.held_out)
        if not len(held_out):
            held_out = np.arange(len(self.dataset))  # too few to hold any out: all are as good
        count = min(self.episodes or len(held_out), len(held_out))
        return tuple(held_out[np.linspace(0, len(held_out) - 1, count).round().astype(int)].tolist())

    def to_dict(self) -> dict[str, object]:
        """Return what is hashed and written beside the results."""
        return {
            "suite": f"replay of {self.data.name}",
            "dataset": self.dataset.fingerprint,
            "policy": self.policy,
            "methods": list(self.methods),
            "recordings": list(self.chosen),
            "seed": self.seed,
        }

    @property
    def id(self) -> str:
        """Return the replay's name."""
        return run_name(f"replay-{self.data.name}", self.policy, self.to_dict())

    def turns(self, episode: int, n_methods: int) -> list[int]:
        """Return the order in which the methods are shown a recording, drawn anew for each from the plan's seed."""
        return np.random.default_rng([self.seed, episode]).permutation(n_methods).tolist()
