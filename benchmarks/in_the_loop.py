"""Print, query by query, what a method answers in the loop and what the full computation answers to the same pictures.

    OMP_NUM_THREADS=1 python benchmarks/in_the_loop.py --method lac --task 1

The method plays, as in `vla-bench run` with `--policy reference:execute=2,ensemble=True`; the full computation is asked
beside it and plays nothing. `vla-bench replay` compares the two on recordings, where a mistake has no consequences.
"""

import argparse

import numpy as np
import torch

from vla_bench import registry
from vla_bench.rollout import observed_keys
from vla_bench_policies.reference.ensemble import TemporalEnsemble
from vla_bench_policies.reference.policy import ReferencePolicy

GRIPPER = 6


def main() -> None:
    """Play one episode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="libero-object@1")
    parser.add_argument("--protocol", default="reference-fast")
    parser.add_argument("--method", default="lac")
    parser.add_argument("--weights", default="cpu-deep", help="of the reference VLA")
    parser.add_argument("--execute", type=int, default=2, help="control steps between two queries")
    parser.add_argument("--task", type=int, default=1)
    parser.add_argument("--init-state", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    suite = registry.suite(asked.suite)
    protocol, task = suite.protocols()[asked.protocol], suite.tasks()[asked.task]
    whole = ReferencePolicy(asked.weights)  # whole chunks, mixed here, so that both are seen unmixed
    policies = {name: registry.method(name).apply(whole) for name in ("full", asked.method)}
    for policy in policies.values():
        policy.reset(task, 0)
    env = suite.make(protocol)
    obs, info = env.reset(seed=0, options={"task": asked.task, "init_state": asked.init_state})
    ensemble, keys = TemporalEnsemble(8, asked.execute), observed_keys(whole, protocol)
    step, horizon, mm = 0, protocol.horizon(task.suite, task.horizon), 1e3 * task.action_spec.translation_m
    print("step, place of the hand [mm], actions of the chunk that close the fingers (full, method),")
    print("distance of the chunk's motion [mm], visual rows reused")
    while step < horizon and not info["success"]:
        seen = {key: obs[key] for key in keys}
        full, answer = (policy.act(seen) for policy in policies.values())
        moved = [one.actions[:, :3].sum(axis=0) * mm for one in (full, answer)]
        closing = [int((one.actions[:, GRIPPER] > 0).sum()) for one in (full, answer)]
        place = np.asarray(obs["proprio"][:3]) * 1e3
        print(step, place.round().astype(int), *closing, round(float(np.linalg.norm(moved[0] - moved[1])), 1),
              answer.rows_reused)  # fmt: skip
        actions = ensemble.mixed(torch.from_numpy(answer.actions)).numpy()
        actions[:, GRIPPER] = np.where(actions[:, GRIPPER] > 0, 1, -1)
        for action in actions:
            obs, _, _, _, info = env.step(action)
            step += 1
            if info["success"]:
                break
    print("success" if info["success"] else "not solved", "after", step, "steps")
    env.close()


if __name__ == "__main__":
    main()
