"""What this machine makes of one fixed episode: the physics and the pixels that two runs must share to be compared."""

import hashlib
from dataclasses import asdict, dataclass, fields

import numpy as np

from vla_bench.protocol import Protocol
from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.startup import MUJOCO_VERSION

N_ACTIONS = 20
"""Control steps after which the state is hashed: one second, long enough for contacts to tell two engines apart."""


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of the first task from its initial state 0, and what they were made with."""

    protocol: str
    """Name and hash of the protocol."""

    mujoco: str
    """Version of MuJoCo: the pinned one, or there would be no environment."""

    gl_renderer: str
    """Name and version of the OpenGL driver."""

    state_sha256: str
    """Of the simulator's state after 20 fixed actions: equal physics."""

    image_sha256: str
    """Of the first observation's images: equal pixels."""

    def to_dict(self) -> dict[str, str]:
        """Return plain JSON values."""
        return asdict(self)

    def differences(self, other: "Fingerprint") -> list[str]:
        """Return one phrase for every field in which `other` differs; equal hashes outrank unequal versions."""
        return [
            f"{field.name}: {getattr(self, field.name)} against {getattr(other, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def fixed_actions(size: int) -> np.ndarray:
    """Return the actions (20, size) of the fingerprint: slow sweeps, and a gripper that closes half way through."""
    time = np.arange(N_ACTIONS)[:, None] / N_ACTIONS
    actions = 0.5 * np.sin(2 * np.pi * (time + np.arange(size) / size))
    actions[:, -1] = np.where(time[:, 0] < 0.5, -1.0, 1.0)
    return np.round(actions, 6)  # the last bit of a sine differs between mathematical libraries


def fingerprint(suite: str, protocol: Protocol) -> Fingerprint:
    """Compile and play the suite's first task: 10 to 20 s.

    Raises:
        PinnedVersionError: If MuJoCo is not the pinned version.
        MissingGraphicsError: If no off-screen OpenGL context can be made.
    """
    env = LiberoEnv(suite, protocol, images="lazy")
    try:
        obs, _ = env.reset(options={"task": 0, "init_state": 0})
        images = hashlib.sha256()
        for camera in protocol.cameras:
            images.update(obs[camera].tobytes())
        for action in fixed_actions(env.task.action_spec.size):
            env.step(action)
        return Fingerprint(
            protocol=str(protocol),
            mujoco=MUJOCO_VERSION,
            gl_renderer=env.stage.cameras.graphics.renderer(),
            state_sha256=hashlib.sha256(env.stage.state.tobytes()).hexdigest(),
            image_sha256=images.hexdigest(),
        )
    finally:
        env.close()
