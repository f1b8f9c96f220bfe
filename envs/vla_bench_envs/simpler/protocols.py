"""Presets of everything that decides a SIMPLER episode besides policy, task and initial state."""

from dataclasses import dataclass, replace
from typing import Literal

from vla_bench.protocol import Protocol

CAMERA = "3rd_view_camera"
"""ManiSkill's name for the camera of BridgeData V2, and CogACT's."""

CONTROL_HZ = 5.0
"""Control steps per simulated second. Source: ManiSkill 3.0.1, `bridge_dataset_eval/base_env.py`, `control_freq=5`."""

STILL = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
"""Stand still with an open gripper."""


@dataclass(frozen=True)
class SimplerProtocol(Protocol):
    """A protocol with what SIMPLER has to decide besides.

    `settle_steps` is 0: ManiSkill lets objects come to rest inside of its reset. `render` has no meaning here.
    """

    image_width: int = 640
    """Width of the pictures [px]; `image_size` is their height."""

    shader: Literal["default", "minimal"] = "default"
    """ManiSkill's shader pack: `default` computes highlights, `minimal` is what its cameras have unless told."""

    reduction: int = 1
    """By what the drawn picture's sides (640 x 480 px) are divided; it is then scaled to what is asked for."""

    success: Literal["end", "once"] = "end"
    """When the predicate is judged: at the horizon, as SIMPLER does, or at every step, which ends the episode."""

    assets: Literal["official", "stand-in"] = "official"
    """Whether meshes are the published ones; `stand-in` is part of the protocol's name in every record."""

    @property
    def picture_px(self) -> tuple[int, int]:
        """Return height and width of the pictures [px]."""
        return self.image_size, self.image_width

    def with_assets(self, kind: Literal["official", "stand-in"]) -> "SimplerProtocol":
        """Return the protocol for such assets, under a name that says so."""
        return self if kind == self.assets else replace(self, name=f"{self.name}-{kind}", assets=kind)


_SIMPLER = SimplerProtocol(
    name="simpler",
    cameras=(CAMERA,),
    image_size=480,  # bridge_dataset_eval/base_env.py: width=640, height=480
    rotate_180=False,
    settle_steps=0,
    settle_action=STILL,
    control_hz=CONTROL_HZ,
    gripper="open_is_positive",
    shader="default",  # SimplerEnv at 2438864, simpler_env/real2sim_eval_maniskill3.py: shader: str = "default"
    success="end",  # the same file: the metrics are those of the last step; maniskill2_evaluator.py: likewise
)

PROTOCOLS: dict[str, SimplerProtocol] = {
    preset.name: preset
    for preset in (
        _SIMPLER,
        # CogACT, scripts/bridge.bash and those who follow it: --max-episode-steps 120 for all four tasks.
        replace(_SIMPLER, name="simpler-120", horizons=(("simpler-widowx@1", 120),)),
        replace(_SIMPLER, name="reference", image_size=128, image_width=128, shader="minimal", success="once"),
        replace(
            _SIMPLER, name="reference-fast", image_size=128, image_width=128, shader="minimal", success="once",
            reduction=4,
        ),
    )
}  # fmt: skip
"""Presets by name, for official assets."""
