"""LIBERO as a source of demonstrations."""

from collections.abc import Iterator
from contextlib import contextmanager

from vla_bench import provenance
from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.demonstrations.pushes import PushForm
from vla_bench_envs.demonstrations.source import DELTA_POSE, POSE_AND_FINGERS, Stand
from vla_bench_envs.libero.demonstrations.initial_states import InitialStates
from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.experts.policy import ExpertPolicy
from vla_bench_envs.libero.startup import prepare_process


class LiberoSource:
    """Satisfies `vla_bench_envs.demonstrations.source.Source`."""

    robot = "panda"
    state_names = POSE_AND_FINGERS
    action_names = DELTA_POSE
    push = PushForm(steps=(3, 9), strength=(0.2, 0.7), turn=0.15)
    """0.15 to 0.4 s at 20 Hz; 1 is the fastest that the arm goes."""

    def conditions(self) -> dict[str, str]:
        """Return the expert's hash and MuJoCo's version."""
        return {"expert": ExpertPolicy().fingerprint, "mujoco": provenance.packages().get("mujoco", "missing")}

    def prepare(self) -> None:
        """Choose how MuJoCo draws."""
        prepare_process()

    @contextmanager
    def stand(self, task: Task, protocol: Protocol, seed: int) -> Iterator[Stand]:
        """Open a task, with the fixtures where the protocol wants them."""
        env = LiberoEnv(suite=task.suite, protocol=protocol, images="lazy", ends_at_success=False)
        expert = ExpertPolicy()
        expert.attach(env)
        try:
            env.reset(options={"task": task.index, "init_state": 0})
            yield Stand(env, expert, InitialStates(env.stage, seed))
        finally:
            env.close()
