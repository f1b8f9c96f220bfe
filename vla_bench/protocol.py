"""A protocol: everything about an environment that decides a number, as data with a hash."""

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class RenderProfile:
    """How pictures are drawn. Two profiles are two protocols: their pixels differ."""

    name: str = "standard"
    """`standard` draws what published results saw; `fast` is for machines without a GPU."""

    mesh_fraction: float = 1.0
    """Share of the faces of visual-only meshes that is kept; 1 leaves them untouched."""

    multisampling: bool = True
    """Anti-aliasing as the simulator's model asks for it."""

    reflections: bool = True
    """Mirror images in reflective materials."""


@dataclass(frozen=True)
class Protocol:
    """Everything that decides an episode besides the policy, the task and the initial state."""

    name: str
    """Preset this is, for example `openvla-oft`; every deviation is another name."""

    cameras: tuple[str, ...]
    """Cameras that are observed, by the name under which the policy sees them."""

    image_size: int
    """Height and width of the rendered pictures [px]."""

    rotate_180: bool
    """Whether pictures are turned by 180 degrees, as for policies that were trained on such."""

    settle_steps: int
    """Steps of `settle_action` before the first observation, in which objects come to rest."""

    settle_action: tuple[float, ...]
    """What is applied while settling."""

    control_hz: float
    """Control steps per simulated second."""

    gripper: str = "close_is_positive"
    """Sign of the gripper's action, as in `ActionSpec`."""

    horizons: tuple[tuple[str, int], ...] = ()
    """Control steps a suite's episode may take where they differ from the suite's own, as (suite, steps)."""

    scene_seed: int = 0
    """Seed of everything that an initial state does not restore (the placement of fixtures)."""

    render: RenderProfile = RenderProfile()
    """How pictures are drawn."""

    @property
    def hash(self) -> str:
        """Return 16 hexadecimal digits of the SHA-256 of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def picture_px(self) -> tuple[int, int]:
        """Return height and width of the pictures [px]."""
        return self.image_size, self.image_size

    @property
    def resting_gripper(self) -> float | None:
        """Return the gripper's entry that leaves it as it is; None where repeating the last one does, a place to go."""
        return None

    def horizon(self, suite: str, default: int) -> int:
        """Return the control steps an episode of `suite` may take under this protocol."""
        return dict(self.horizons).get(suite, default)

    def __str__(self) -> str:
        return f"{self.name}-{self.hash}"
