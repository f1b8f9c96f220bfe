"""What demonstrations look like, and the model that fits them: views, proprioception and the meaning of actions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from vla_bench.demonstrations.dataset import Dataset
from vla_bench.types import ActionSpec
from vla_bench_policies.reference.model import ModelConfig
from vla_bench_policies.reference.training.frames import UnfitDemonstrationsError

Given = Literal["fingers", "all"]
"""What of the proprioception a model is given: the fingers alone, or the hand's pose as well."""

COMMANDED = "commanded_"
"""Before the name of a state's entry that is of the pose that the hand was sent to."""

POSE_ENTRIES = 6
"""Entries of a state that are the hand's pose: position and rotation vector, before the fingers'."""


@dataclass(frozen=True)
class Form:
    """What all demonstrations of a training have in common."""

    cameras: tuple[str, ...]
    """Views, in the order of their rows."""

    state_names: tuple[str, ...]
    """Entries of the proprioception."""

    action_spec: ActionSpec
    """What an action means."""

    @property
    def commanded(self) -> bool:
        """Return whether the pose is the one that the hand was sent to."""
        return self.state_names[0].startswith(COMMANDED)

    def fitted(self, config: ModelConfig, given: Given) -> ModelConfig:
        """Return the model's shape for these demonstrations, all else as it was."""
        size = len(self.state_names)
        return replace(
            config,
            cameras=self.cameras,
            proprio_size=size,
            proprio_entries=tuple(range(0 if given == "all" else POSE_ENTRIES, size)),
            action_size=self.action_spec.size,
        )


def form_of(directories: Sequence[Path]) -> Form:
    """Return the form of some datasets.

    Raises:
        NoDatasetError: If a directory has none.
        UnfitDemonstrationsError: If they differ from each other.
    """
    forms = [Form(dataset.cameras, dataset.state_names, dataset.action_spec) for dataset in map(Dataset, directories)]
    for directory, form in zip(directories, forms, strict=True):
        found, expected = asdict(form), asdict(forms[0])
        unequal = [key for key in expected if found[key] != expected[key]]
        if unequal:
            raise UnfitDemonstrationsError(
                directory,
                ", ".join(f"{key} {found[key]}" for key in unequal),
                f"what {directories[0]} has: {', '.join(str(expected[key]) for key in unequal)}",
            )
    return forms[0]
