"""Play a policy on starts of SIMPLER that are no official ones, and say where it closes its hand.

    python benchmarks/simpler_starts.py --policy reference:simpler,execute=4 --policy reference:simpler,execute=2

The starts are drawn as those of demonstrations are, from a seed that no demonstration has: what is chosen on them (how
often to look, which checkpoint) is not chosen on the starts that are scored. All policies play the same ones.
"""

import argparse
from typing import Any

import numpy as np

from vla_bench import registry
from vla_bench.contestant import Contestant
from vla_bench.rollout import observed_keys
from vla_bench_envs.demonstrations.source import Stand
from vla_bench_envs.simpler.demonstrations.source import SimplerSource
from vla_bench_envs.simpler.experts.plans import GRASP_AT_M
from vla_bench_envs.simpler.experts.scene import Scene

GRIPPER = 6
MM = 1e3


def main() -> None:
    """Play all policies on all starts, start by start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", action="append", required=True, help="specification; again for another one")
    parser.add_argument("--method", default="full")
    parser.add_argument("--tasks", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--starts", type=int, default=8, help="of each task")
    parser.add_argument("--first", type=int, default=0, help="index of the first start")
    parser.add_argument("--seed", type=int, default=1, help="of the starts; demonstrations have 0")
    parser.add_argument("--protocol", default="reference-fast")
    asked = parser.parse_args()
    source, suite = SimplerSource(), registry.suite("simpler-widowx@1")
    source.prepare()
    protocol = suite.protocols()[asked.protocol]
    contestants = {name: Contestant.of(asked.method, registry.policy(name)) for name in asked.policy}
    for index in asked.tasks:
        task, solved = suite.tasks()[index], dict.fromkeys(contestants, 0)
        with source.stand(task, protocol, asked.seed) as stand:
            for start in range(asked.first, asked.first + asked.starts):
                for name, contestant in contestants.items():
                    success, told = played(stand, contestant, task, start)
                    solved[name] += success
                    print(f"{task.name} {start} {name}: {'solved' if success else 'not solved'}; {told}", flush=True)
        for name, n in solved.items():
            print(f"{task.name}: {n} of {asked.starts} by {name}", flush=True)


def played(stand: Stand, contestant: Contestant, task: Any, start: int) -> tuple[bool, str]:
    """Play one start; return whether it was solved, and what the hand did.

    Said of every closing: the step, how far the finger tips were from where the expert would have closed them (ahead,
    left, above), and how high the object came before they opened.
    """
    env, policy = stand.env, contestant.policy
    keys = observed_keys(policy, env.protocol)
    obs, _ = env.reset(options={"task": task.index, "init_state": stand.states.draw(start)})
    policy.reset(task, start)
    scene, closed, told, steps, success, over = Scene(env.simulator), False, [], 0, False, False
    rest = scene.pose(scene.source)[0][2]
    while not success and not over:
        for action in contestant.ask(obs, keys).chunk.actions:
            if (action[GRIPPER] < 0) != closed:
                closed = not closed
                told.append(f"{steps} {'closes' if closed else 'opens'} at {_missed(scene)}")
            obs, _, _, over, info = env.step(action)
            steps += 1
            success = bool(info["success"])
            if closed and scene.pose(scene.source)[0][2] - rest > 0.02 and not told[-1].endswith("lifted"):
                told.append("lifted")
            if success or over:
                break
    return success, f"{steps} steps; " + ", ".join(told)


def _missed(scene: Scene) -> str:
    """Return where the tool is, from the place at which the expert takes the object [mm]."""
    position, turned = scene.pose(scene.source)
    grasp = position + turned.apply([GRASP_AT_M.get(scene.source, 0.0), 0.0, 0.0])
    return " ".join(f"{value * MM:+.0f}" for value in np.asarray(scene.tool[0] - grasp))


if __name__ == "__main__":
    main()
