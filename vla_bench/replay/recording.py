"""A recorded episode, as the observations that a policy would have been shown."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from vla_bench.demonstrations.dataset import Dataset
from vla_bench.errors import VlaBenchError
from vla_bench.policy import Policy
from vla_bench.types import ActionSpec, Observation, Task


class UnfitRecordingError(VlaBenchError):
    """Refuse recordings that a policy cannot be shown."""

    def __init__(self, directory: object, found: str, policy: str, expected: str) -> None:
        super().__init__(
            f"{directory} has {found}; {policy!r} needs {expected}: record under a protocol of this policy, such as "
            f"'vla-bench collect --protocol reference-fast'"
        )


@dataclass(frozen=True)
class Recording:
    """One episode."""

    index: int
    """In its dataset."""

    sentence: str
    images: dict[str, UInt8[np.ndarray, "steps height width 3"]]
    """By camera."""

    states: Float32[np.ndarray, "steps state"]
    """Proprioception, as the environment gave it."""

    actions: Float32[np.ndarray, "steps action"]
    """What was done, in the units of the environment that recorded it."""

    control_hz: float

    def __len__(self) -> int:
        return len(self.states)

    def observation(self, step: int) -> Observation:
        """Return what was seen before a control step."""
        pictures = {camera: frames[step] for camera, frames in self.images.items()}
        return {**pictures, "proprio": self.states[step], "instruction": self.sentence}

    def task(self, suite: str, spec: ActionSpec) -> Task:
        """Return what a policy is told at the start."""
        return Task(suite, self.index, f"episode-{self.index}", self.sentence, len(self), 1, self.control_hz, spec)


def read(dataset: Dataset, index: int, cameras: tuple[str, ...]) -> Recording:
    """Return an episode of a dataset, with the images of these cameras."""
    episode = dataset.load(index, cameras=cameras)
    return Recording(
        index, episode.sentence, episode.images, episode.states, episode.actions, float(dataset.info["fps"])
    )


def check(dataset: Dataset, policy: Policy) -> tuple[str, ...]:
    """Return the cameras that a policy reads.

    Raises:
        UnfitRecordingError: If the dataset lacks one, or its actions have another size.
    """
    cameras = dataset.cameras if policy.cameras is None else policy.cameras
    if missing := [camera for camera in cameras if camera not in dataset.cameras]:
        found = f"the cameras {', '.join(dataset.cameras)}"
        raise UnfitRecordingError(dataset.directory, found, policy.name, f"{', '.join(missing)} too")
    (size,) = dataset.info["features"]["action"]["shape"]
    if size != policy.action_spec.size:
        found = f"actions of {size} entries"
        raise UnfitRecordingError(dataset.directory, found, policy.name, f"{policy.action_spec.size}")
    return cameras
