"""The Google robot's suites: names, tasks, sentences, horizons, starts. Starts no simulator."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from vla_bench.errors import UnknownNameError
from vla_bench.protocol import Protocol
from vla_bench.types import ActionSpec, Task
from vla_bench_envs.simpler_google.matching import MATCHING
from vla_bench_envs.simpler_google.protocols import CONTROL_HZ, PROTOCOLS, GoogleProtocol
from vla_bench_envs.simpler_google.starts import Playbook
from vla_bench_envs.simpler_google.variants import VARIANTS
from vla_bench_envs.tasks import find_task

if TYPE_CHECKING:
    from vla_bench_envs.simpler_google.environment import SimplerGoogleEnv

ACTION_SPEC = ActionSpec(translation_m=1.0, rotation_rad=1.0, gripper="close_is_positive")
"""Metres and radians in the axes of the robot's base, added to where the end effector *is*, and a change of the
gripper's target.

Sources, in ManiSkill2_real2sim at ef7a4d4: `agents/controllers/pd_ee_pose.py` (frame `ee_align`, no `use_target`; not
clipped, since not normalised); `agents/configs/google_robot/defaults.py` and `agents/controllers/pd_joint_pos.py`: the
gripper's entry times 1.31 rad is added to the fingers' last drive target, cut off at the joints' ends; below 0.001 the
target stays. So +1 asks for closed fingers and -1 for open ones whatever they were, 0 keeps them, and what lies
between moves them by a part. A drive target moves no faster than 1 rad/s. Policies that answer an opening hand on its
change and repeat it: 15 times (Octo), 10 times (CogACT, `vla_bench_policies.openvla.ensemble`); RT-1 answers a change.
"""

DATASET = "fractal20220817_data"
"""What the robot's policies were trained on. Source: SimplerEnv, `simpler_env/policies/octo/octo_model.py`."""


@dataclass(frozen=True)
class GoogleSuite:
    """One versioned set of the robot's tasks; satisfies `vla_bench.suite.Suite`."""

    name: str
    """With version, for example `simpler-google-matching@1`."""

    gym_id: str
    """Under which Gymnasium knows the environment."""

    playbooks: tuple[Playbook, ...]
    """The tasks with their starts, in standard order."""

    default_protocol: str = "simpler"
    """Protocol that is used when none is named."""

    @cached_property
    def _tasks(self) -> tuple[Task, ...]:
        return tuple(
            Task(
                suite=self.name,
                index=index,
                name=book.name,
                instruction=book.instruction,
                horizon=book.horizon,
                n_initial_states=len(book.starts),
                control_hz=CONTROL_HZ,
                action_spec=ACTION_SPEC,
                dataset=DATASET,
            )
            for index, book in enumerate(self.playbooks)
        )

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in standard order."""
        return self._tasks

    def task(self, key: int | str) -> Task:
        """Return the task at a position in the standard order, or of a name.

        Raises:
            OptionError: If the position is out of range.
            UnknownNameError: If no task has that name.
        """
        return find_task(self.name, self.tasks(), key)

    def protocols(self) -> dict[str, Protocol]:
        """Return the presets by name."""
        return dict(PROTOCOLS)

    def protocol(self, name: str) -> GoogleProtocol:
        """Return the preset of that name.

        Raises:
            UnknownNameError: If there is none.
        """
        if name not in PROTOCOLS:
            raise UnknownNameError("protocol of SIMPLER's Google robot", name, PROTOCOLS)
        return PROTOCOLS[name]

    def make(self, protocol: Protocol, images: Literal["lazy", "eager"] = "lazy") -> "SimplerGoogleEnv":
        """Return an environment; the simulator's process starts at its first `reset`."""
        from vla_bench_envs.simpler_google.environment import SimplerGoogleEnv

        return SimplerGoogleEnv(suite=self.name, protocol=protocol, images=images)

    def fingerprint(self, protocol: Protocol) -> dict[str, str]:
        """Return versions, and a hash of the simulator's sources; starts its process and plays nothing."""
        from vla_bench_envs.simpler_google.fingerprint import fingerprint

        return fingerprint(protocol).to_dict()


SUITES: dict[str, GoogleSuite] = {
    suite.name: suite
    for suite in (
        GoogleSuite("simpler-google-matching@1", "vla_bench/SimplerGoogleMatching-v0", MATCHING),
        GoogleSuite("simpler-google-variants@1", "vla_bench/SimplerGoogleVariants-v0", VARIANTS),
    )
}
"""All suites by name; the entry point group `vla_bench.suites` names this mapping."""


def find_suite(name: str) -> GoogleSuite:
    """Return the Google robot's suite of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in SUITES:
        raise UnknownNameError("suite of SIMPLER's Google robot", name, SUITES)
    return SUITES[name]
