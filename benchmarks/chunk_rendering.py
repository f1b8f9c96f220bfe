"""Print what an open-loop chunk costs when only the frames that are read are drawn; it must be a quarter or less.

    LP_NUM_THREADS=1 python benchmarks/chunk_rendering.py

A policy that answers with 8 actions reads one observation in 8. The same 24 actions are played with every frame
drawn, and with one frame in 8 drawn; the states at the end must be equal.
"""

import argparse
from time import perf_counter

import numpy as np

from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.fingerprint import fixed_actions

CHUNK = 8
N_STEPS = 24
LIMIT = 0.25
"""Greatest share of the time of drawing every frame."""


def play(env: LiberoEnv, every: int) -> tuple[float, np.ndarray]:
    """Return the mean wall time of a step [ms] when every n-th observation is read, and the last state."""
    obs, _ = env.reset(options={"task": 0, "init_state": 0})
    dict(obs)  # makes the OpenGL context
    actions = np.resize(fixed_actions(7), (N_STEPS, 7))
    start = perf_counter()
    for step, action in enumerate(actions, start=1):
        obs, *_ = env.step(action)
        if step % every == 0:
            dict(obs)
    return (perf_counter() - start) / N_STEPS * 1e3, env.stage.state


def main() -> None:
    """Print the times; exit with an error if the chunk costs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", default="reference", help="preset; the limit is for standard rendering")
    env = LiberoEnv("libero-spatial@1", parser.parse_args().protocol, images="lazy")
    every, state = play(env, 1)
    chunk, same = play(env, CHUNK)
    never, _ = play(env, N_STEPS + 1)
    env.close()
    assert np.array_equal(state, same), "drawing must not touch physics"
    print(f"every frame drawn: {every:.1f} ms a step; one in {CHUNK}: {chunk:.1f} ms; none: {never:.1f} ms")
    print(f"the chunk costs {chunk / every:.0%} of drawing every frame (limit {LIMIT:.0%})")
    if chunk > LIMIT * every:
        raise SystemExit("too slow: is something drawing images that nobody reads?")


if __name__ == "__main__":
    main()
