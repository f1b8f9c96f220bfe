"""Make the LIBERO suites known to Gymnasium, by name; nothing of the simulator is imported."""

import gymnasium

from vla_bench_envs.libero.suites import SUITES


def register_environments() -> None:
    """Register every suite, once: `gymnasium.make("vla_bench/LiberoSpatial-v0")`."""
    for suite in SUITES.values():
        if suite.gym_id not in gymnasium.registry:
            gymnasium.register(
                id=suite.gym_id,
                entry_point="vla_bench_envs.libero.environment:LiberoEnv",
                vector_entry_point="vla_bench_envs.libero.vector:LiberoVectorEnv",
                kwargs={"suite": suite.name},
            )
