"""SIMPLER as a source of demonstrations."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.demonstrations.pushes import PushForm
from vla_bench_envs.demonstrations.source import DELTA_POSE, POSE_AND_FINGERS, Stand
from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.demonstrations.initial_states import InitialStates
from vla_bench_envs.simpler.environment import SimplerEnv
from vla_bench_envs.simpler.experts.plans import GRASP_AT_M
from vla_bench_envs.simpler.experts.policy import ExpertPolicy
from vla_bench_envs.simpler.experts.scene import Scene
from vla_bench_envs.simpler.startup import VERSIONS
from vla_bench_envs.simpler.vulkan import prepare_driver

HIGH_M, APART_M = 0.05, 0.05
"""After a policy has moved the arm, the expert begins where the hand is that much over the object it is to take, and
that far from it: it holds nothing, and from lower down the plan would go up first where a descent goes on."""


class SimplerSource:
    """Satisfies `vla_bench_envs.demonstrations.source.Source`."""

    robot = "widowx"
    state_names = POSE_AND_FINGERS
    action_names = DELTA_POSE
    push = PushForm(steps=(1, 3), strength=(0.01, 0.03), turn=0.1)
    """0.2 or 0.4 s at 5 Hz; the expert moves 0.03 m a step at most."""

    def conditions(self) -> dict[str, str]:
        """Return the expert's hash, the simulator's versions, and which assets were seen."""
        return {"expert": ExpertPolicy().fingerprint, **VERSIONS, "assets": f"{assets.kind()} {assets.sha256()[:16]}"}

    def prepare(self) -> None:
        """Name what draws."""
        prepare_driver()

    @contextmanager
    def stand(self, task: Task, protocol: Protocol, seed: int) -> Iterator[Stand]:
        """Open a task."""
        env = SimplerEnv(suite=task.suite, protocol=protocol, images="lazy", ends_at_success=False)
        expert = ExpertPolicy()
        expert.attach(env)
        try:
            env.reset(options={"task": task.index, "init_state": 0})
            yield Stand(env, expert, InitialStates(env.stage, seed), lambda: is_free(Scene(env.simulator)))
        finally:
            env.close()


def is_free(scene: Scene) -> bool:
    """Return whether the hand is high over the object that is to be taken, and does not hold it."""
    position, turned = scene.pose(scene.source)
    away = scene.tool[0] - position - turned.apply([GRASP_AT_M.get(scene.source, 0.0), 0.0, 0.0])
    return bool(away[2] > HIGH_M and np.linalg.norm(away) > APART_M)
