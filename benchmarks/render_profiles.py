"""Print what each render option costs and how far its pictures are from the standard ones, as a markdown table.

    LP_NUM_THREADS=1 python benchmarks/render_profiles.py

Times are wall times [ms] of one picture, or of both cameras' together: the least of four, which other processes on the
machine disturb little, and of that the median over five moments of libero-spatial task 0. Differences are to the
standard profile at the same size: the mean over channels [grey levels of 255], and the share of pixels with a channel
that is off by more than 16.
"""

from dataclasses import replace
from statistics import median
from time import perf_counter

import numpy as np

from vla_bench.protocol import RenderProfile
from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.fingerprint import fixed_actions
from vla_bench_envs.libero.protocols import AGENT, FAST, WRIST, protocol

SIZES_PX = (128, 256)
STEPS_BETWEEN_MOMENTS = 4
REPEATS = 4
STANDARD = RenderProfile()
PROFILES = (
    STANDARD,
    RenderProfile(name="reflections off", reflections=False),
    RenderProfile(name="multisampling off", multisampling=False),
    RenderProfile(name="both off", multisampling=False, reflections=False),
    RenderProfile(name="20 % of faces", mesh_fraction=0.2),
    RenderProfile(name="10 % of faces", mesh_fraction=0.1),
    RenderProfile(name="10 % of faces, reflections off", mesh_fraction=0.1, reflections=False),
    RenderProfile(name="10 % of faces, multisampling off", mesh_fraction=0.1, multisampling=False),
    FAST,
)


def measure(profile: RenderProfile, size: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Return median times by camera [ms], the agent view's and wrist's pictures, and the last state."""
    env = LiberoEnv("libero-spatial@1", replace(protocol("reference"), image_size=size, render=profile), images="lazy")
    env.reset(options={"task": 0, "init_state": 0})
    cameras = env.stage.cameras
    cameras.draw(AGENT)  # makes the OpenGL context
    least: dict[str, list[float]] = {AGENT: [], WRIST: [], "both": []}
    pictures = []
    for step, action in enumerate(fixed_actions(7)):
        env.step(action)
        if step % STEPS_BETWEEN_MOMENTS:
            continue
        times: dict[str, list[float]] = {name: [] for name in least}
        for _ in range(REPEATS):
            start = perf_counter()
            agent = cameras.draw(AGENT)
            between = perf_counter()
            wrist = cameras.draw(WRIST)
            end = perf_counter()
            for name, seconds in ((AGENT, between - start), (WRIST, end - between), ("both", end - start)):
                times[name].append(seconds * 1e3)
        for name, values in times.items():
            least[name].append(min(values))
        pictures.append(np.stack([agent, wrist]))
    state = env.stage.state
    env.close()
    return {name: median(values) for name, values in least.items()}, np.array(pictures).astype(int), state


def main() -> None:
    """Print the table."""
    print("| profile | size [px] | agent view [ms] | wrist [ms] | both [ms] | mean difference | pixels off by > 16 |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES_PX:
        standard, standard_state = None, None
        for profile in PROFILES:
            times, pictures, state = measure(profile, size)
            standard = pictures if standard is None else standard
            standard_state = state if standard_state is None else standard_state
            assert np.array_equal(state, standard_state), "a render profile must not touch physics"
            gap = np.abs(pictures - standard)
            print(
                f"| {profile.name} | {size} | {times[AGENT]:.1f} | {times[WRIST]:.1f} | {times['both']:.1f} "
                f"| {gap.mean():.2f} | {(gap.max(axis=-1) > 16).mean():.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
