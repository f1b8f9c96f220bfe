"""Make the robot known to Gymnasium, by name; nothing else is imported."""

import gymnasium

GYM_ID = "vla_bench/RealRobot-v0"


def register_environments() -> None:
    """Register it, once: `gymnasium.make("vla_bench/RealRobot-v0")`."""
    if GYM_ID not in gymnasium.registry:
        gymnasium.register(id=GYM_ID, entry_point="vla_bench_envs.robot.environment:RealRobotEnv")
