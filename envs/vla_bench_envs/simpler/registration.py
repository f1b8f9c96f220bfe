"""Make the SIMPLER suites known to Gymnasium, by name; nothing of the simulator is imported."""

import gymnasium

from vla_bench_envs.simpler.suites import SUITES


def register_environments() -> None:
    """Register every suite, once: `gymnasium.make("vla_bench/SimplerWidowX-v0")`."""
    for suite in SUITES.values():
        if suite.gym_id not in gymnasium.registry:
            gymnasium.register(
                id=suite.gym_id,
                entry_point="vla_bench_envs.simpler.environment:SimplerEnv",
                kwargs={"suite": suite.name},
            )
