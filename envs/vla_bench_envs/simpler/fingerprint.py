"""What this machine makes of one fixed episode: the physics and the pixels that two runs must share to be compared."""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from vla_bench.protocol import Protocol
from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.environment import SimplerEnv
from vla_bench_envs.simpler.startup import VERSIONS
from vla_bench_envs.simpler.suites import ACTION_SPEC
from vla_bench_envs.simpler.vulkan import render_system

N_ACTIONS = 20
"""Control steps after which the state is hashed: four seconds, in which the gripper closes."""


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of the first task from its initial state 0, and what they were made with."""

    protocol: str
    """Name and hash of the protocol."""

    simulator: str
    """Versions of ManiSkill and SAPIEN: the pinned ones, or there would be no environment."""

    renderer: str
    """Name of the device that draws."""

    assets: str
    """`official` or `stand-in`, and a hash of all files."""

    state_sha256: str
    """Of the simulator's state after 20 fixed actions: equal physics."""

    image_sha256: str
    """Of the first observation's image: equal pixels."""

    def to_dict(self) -> dict[str, str]:
        """Return plain JSON values."""
        return asdict(self)


def fixed_actions() -> np.ndarray:
    """Return the actions (20, 7) of the fingerprint: sweeps of 1 cm and 0.05 rad a step, and a gripper that closes."""
    time = np.arange(N_ACTIONS)[:, None] / N_ACTIONS
    scale = np.array([0.01] * 3 + [0.05] * 3 + [1.0])
    actions = scale * np.sin(2 * np.pi * (time + np.arange(ACTION_SPEC.size) / ACTION_SPEC.size))
    actions[:, -1] = np.where(time[:, 0] < 0.5, 1.0, -1.0)
    return np.round(actions, 6)  # the last bit of a sine differs between mathematical libraries


def fingerprint(suite: str, protocol: Protocol) -> Fingerprint:
    """Build and play the suite's first task: 20 s without a GPU, for the first picture of a process.

    Raises:
        MissingSimulatorError: If ManiSkill is not installed.
        MissingAssetsError: If its files are not there.
        MissingVulkanError: If nothing can draw.
    """
    env = SimplerEnv(suite, protocol, images="lazy")
    try:
        obs, info = env.reset(options={"task": 0, "init_state": 0})
        images = hashlib.sha256()
        for camera in protocol.cameras:
            images.update(obs[camera].tobytes())
        for action in fixed_actions():
            env.step(action)
        return Fingerprint(
            protocol=str(protocol),
            simulator=", ".join(f"{name} {version}" for name, version in VERSIONS.items()),
            renderer=render_system().device.name,
            assets=f"{info['assets']} {assets.sha256()[:16]}",
            state_sha256=hashlib.sha256(env.stage.state.tobytes()).hexdigest(),
            image_sha256=images.hexdigest(),
        )
    finally:
        env.close()
