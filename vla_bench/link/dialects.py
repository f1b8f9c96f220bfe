"""What other projects call the entries of an observation, and in which form they want them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from vla_bench.errors import UnknownNameError
from vla_bench.link.errors import ForeignObservationError
from vla_bench.types import ActionSpec, Observation


@dataclass(frozen=True)
class Dialect:
    """Names and forms of one family of published policies, on one family of tasks."""

    name: str
    images: tuple[tuple[str, str], ...]
    """Our camera and its key there, main view first."""

    state: str
    """Key of `proprio`, sent as float64."""

    prompt: str
    """Key of the instruction."""

    image_px: int
    """Height and width that the policy was served with."""

    execute: int
    """Actions of a chunk that the published loop applies before the next look."""

    action_spec: ActionSpec
    """What its actions mean; they are clipped to its limits, as the simulator's controller does."""

    protocol: Literal["openpi", "vla-eval"] = "openpi"
    """How its servers speak."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Return our names of the cameras it reads."""
        return tuple(camera for camera, _ in self.images)

    def spoken(self, obs: Observation, turned: bool = False) -> dict[str, Any]:
        """Return an observation in this dialect; pictures are resized, and turned by 180 degrees if asked.

        A camera that the observation lacks is left out.
        """
        message: dict[str, Any] = {
            key: fitted(np.ascontiguousarray(obs[camera][::-1, ::-1]) if turned else obs[camera], self.image_px)
            for camera, key in self.images
            if camera in obs
        }
        return message | {self.state: obs["proprio"].astype(np.float64), self.prompt: obs["instruction"]}

    def heard(self, message: Mapping[str, Any]) -> Observation:
        """Return what a client of this dialect observes, under our names; pictures as they come.

        Raises:
            ForeignObservationError: If an entry is missing.
        """
        names = {**{key: camera for camera, key in self.images}, self.state: "proprio", self.prompt: "instruction"}
        missing = [key for key in names if key not in message]
        if missing:
            raise ForeignObservationError(missing[0], sorted(message), list(names))
        obs = {own: message[key] for key, own in names.items()}
        return obs | {"proprio": np.asarray(obs["proprio"], np.float32), "instruction": str(obs["instruction"])}


PI0_LIBERO = Dialect(
    name="pi0-libero",
    images=(("agentview", "observation/image"), ("robot0_eye_in_hand", "observation/wrist_image")),
    state="observation/state",
    prompt="prompt",
    image_px=224,
    execute=5,
    action_spec=ActionSpec(),
)
"""pi0, pi0-FAST and pi0.5 on LIBERO, as openpi serves them.

Sources, openpi at 15a9616: keys from `src/openpi/policies/libero_policy.py` (`LiberoInputs`); 224 px, bilinear, padded
(`resize_size`), 5 actions of a chunk (`replan_steps`), and the state of position, rotation vector and fingers from
`examples/libero/main.py`. There the pictures are rendered at 256 px and turned by 180 degrees: so they are here under
the protocol `openvla-oft`, which turns them; under one that does not, ask for it. Actions go to the simulator as they
come, so they are LIBERO's own; robosuite's controller clips them to [-1, 1].
"""

VLA_EVAL_LIBERO = Dialect(
    name="vla-eval-libero",
    images=(("agentview", "agentview"), ("robot0_eye_in_hand", "wrist")),
    state="states",
    prompt="task_description",
    image_px=256,
    execute=1,
    action_spec=ActionSpec(),
    protocol="vla-eval",
)
"""Any model server of allenai/vla-evaluation-harness, on LIBERO; it keeps chunks to itself and answers one action.

Sources, the harness at e1ee9ad: names, 256 px, pictures turned by 180 degrees and the state from `make_obs` in
`src/vla_eval/benchmarks/libero/benchmark.py` (its `quat_no_antipodal` form of the rotation vector, as LIBERO's own
loops); the gripper closes from 0 upwards, as in its `step`. `images` and the wrist and state that a server asks for are
arranged by the policy `remote`.
"""

DIALECTS = {dialect.name: dialect for dialect in (PI0_LIBERO, VLA_EVAL_LIBERO)}
"""Presets by name."""


def dialect(name: str) -> Dialect:
    """Return the preset of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in DIALECTS:
        raise UnknownNameError("dialect", name, DIALECTS)
    return DIALECTS[name]


def fitted(image: np.ndarray, size_px: int) -> np.ndarray:
    """Return a picture scaled to fit a square, bilinear, centred on black; untouched if it has that size already.

    The computation of `tf.image.resize_with_pad` as openpi serves it: PIL's bilinear filter, sizes rounded down.
    """
    height, width = image.shape[:2]
    if (height, width) == (size_px, size_px):
        return image
    scale = max(height, width) / size_px
    inner = (int(width / scale), int(height / scale))
    scaled = np.asarray(Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR))
    if inner == (size_px, size_px):
        return scaled
    square = np.zeros((size_px, size_px, 3), np.uint8)
    top, left = (size_px - inner[1]) // 2, (size_px - inner[0]) // 2
    square[top : top + inner[1], left : left + inner[0]] = scaled
    return square
