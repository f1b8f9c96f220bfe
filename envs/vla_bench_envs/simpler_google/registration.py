"""Make the Google robot's suites known to Gymnasium, by name; no simulator is started."""

import gymnasium

from vla_bench_envs.simpler_google.suites import SUITES


def register_environments() -> None:
    """Register every suite, once: `gymnasium.make("vla_bench/SimplerGoogleMatching-v0")`."""
    for suite in SUITES.values():
        if suite.gym_id not in gymnasium.registry:
            gymnasium.register(
                id=suite.gym_id,
                entry_point="vla_bench_envs.simpler_google.environment:SimplerGoogleEnv",
                kwargs={"suite": suite.name},
            )
