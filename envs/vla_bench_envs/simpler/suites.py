"""The SIMPLER suites: names, tasks, sentences, horizons. Starts no simulator."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from vla_bench.errors import UnknownNameError
from vla_bench.protocol import Protocol
from vla_bench.types import ActionSpec, Task
from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.protocols import CONTROL_HZ, PROTOCOLS, SimplerProtocol
from vla_bench_envs.tasks import find_task

if TYPE_CHECKING:
    from vla_bench_envs.simpler.demonstrations.source import SimplerSource
    from vla_bench_envs.simpler.environment import SimplerEnv

NAME = "simpler-widowx@1"

ACTION_SPEC = ActionSpec(translation_m=1.0, rotation_rad=1.0, gripper="open_is_positive")
"""Metres and radians in the axes of the robot's base, the rotation as a vector. Source: SimplerEnv,
`maniskill2_evaluator.py` (`world_vector`, `rot_axangle`, `gripper`) and ManiSkill2_real2sim, `pd_ee_pose.py`."""

DATASET = "bridge_orig"
"""What the robot's policies were trained on. Source: SimplerEnv, `policies/openvla/openvla_model.py`, `unnorm_key`."""

N_INITIAL_STATES = 24
"""Official episodes of a task. Source: SimplerEnv, `scripts/bridge.sh`, `--obj-episode-range 0 24`."""


@dataclass(frozen=True)
class Twin:
    """What ManiSkill calls a task, and what our table says about it."""

    name: str
    """SimplerEnv's name of the task, without the robot's."""
    env_id: str
    """ManiSkill's name of the environment."""
    instruction: str
    """Source: `get_language_instruction` of the environment, asked by a test."""
    horizon: int
    """Control steps. Source: `max_episode_steps` of the environment's registration, asked by a test."""


TWINS = (
    Twin("spoon_on_towel", "PutSpoonOnTableClothInScene-v1", "put the spoon on the towel", 60),
    Twin("carrot_on_plate", "PutCarrotOnPlateInScene-v1", "put carrot on plate", 60),
    Twin(
        "stack_cube",
        "StackGreenCubeOnYellowCubeBakedTexInScene-v1",
        "stack the green block on the yellow block",
        60,
    ),
    Twin("put_eggplant_in_basket", "PutEggplantInBasketScene-v1", "put eggplant into yellow basket", 120),
)
"""In the order of SimplerEnv's `simpler_env/__init__.py`.

Success, from ManiSkill 3.0.1, `_evaluate` of `bridge_dataset_eval/base_env.py`: the source's origin is above the
target's; horizontally not farther from it than half the diagonal of the target's bounds plus 3 mm; vertically not
farther than half of both heights plus 20 mm (eggplant: 60 mm). Carrot and cube must also touch their target with more
than 0.05 N. Spoon and eggplant need not.
"""


@dataclass(frozen=True)
class SimplerSuite:
    """One versioned set of SIMPLER tasks; satisfies `vla_bench.suite.Suite`."""

    name: str
    """With version, for example `simpler-widowx@1`."""

    gym_id: str
    """Under which Gymnasium knows the environment."""

    default_protocol: str = "reference"
    """Protocol that is used when none is named."""

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in standard order."""
        return tuple(
            Task(
                suite=self.name,
                index=index,
                name=twin.name,
                instruction=twin.instruction,
                horizon=twin.horizon,
                n_initial_states=N_INITIAL_STATES,
                control_hz=CONTROL_HZ,
                action_spec=ACTION_SPEC,
                dataset=DATASET,
            )
            for index, twin in enumerate(TWINS)
        )

    def task(self, key: int | str) -> Task:
        """Return the task at a position in the standard order, or of a name.

        Raises:
            OptionError: If the position is out of range.
            UnknownNameError: If no task has that name.
        """
        return find_task(self.name, self.tasks(), key)

    def protocols(self) -> dict[str, Protocol]:
        """Return the presets by name, for the assets that are there: stand-ins show in a protocol's own name."""
        kind = assets.kind()
        return {name: preset.with_assets(kind) for name, preset in PROTOCOLS.items()}

    def protocol(self, name: str) -> SimplerProtocol:
        """Return the preset of that name, for the assets that are there.

        Raises:
            UnknownNameError: If there is none.
        """
        protocols = self.protocols()
        if name not in protocols:
            raise UnknownNameError("SIMPLER protocol", name, protocols)
        return cast(SimplerProtocol, protocols[name])

    def make(self, protocol: Protocol, images: Literal["lazy", "eager"] = "lazy") -> "SimplerEnv":
        """Return an environment; the simulator starts at its first `reset`."""
        from vla_bench_envs.simpler.environment import SimplerEnv

        return SimplerEnv(suite=self.name, protocol=protocol, images=images)

    def fingerprint(self, protocol: Protocol) -> dict[str, str]:
        """Return hashes of physics, pixels and assets, and versions; plays the first task."""
        from vla_bench_envs.simpler.fingerprint import fingerprint

        return fingerprint(self.name, protocol).to_dict()

    def demonstrations(self) -> "SimplerSource":
        """Return where demonstrations of its tasks come from."""
        from vla_bench_envs.simpler.demonstrations.source import SimplerSource

        return SimplerSource()


SUITES: dict[str, SimplerSuite] = {NAME: SimplerSuite(NAME, "vla_bench/SimplerWidowX-v0")}
"""All suites by name; the entry point group `vla_bench.suites` names this mapping."""


def find_suite(name: str) -> SimplerSuite:
    """Return the SIMPLER suite of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in SUITES:
        raise UnknownNameError("SIMPLER suite", name, SUITES)
    return SUITES[name]
