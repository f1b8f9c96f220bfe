"""Measure LIBERO under one MuJoCo version, and compare such measurements.

Run `measure` once for each version, each in its own interpreter, with that version first on PYTHONPATH:

    pip install --no-deps --target overlay/3.4.0 mujoco==3.4.0
    PYTHONPATH=overlay/3.4.0 python benchmarks/mujoco_versions.py measure 3.4.0.npz
    python benchmarks/mujoco_versions.py compare 2.3.7.npz 3.3.7.npz 3.4.0.npz

MuJoCo 2.3.7, the version of the published results, needs `numpy==1.26.4` in its overlay. The script imports
only numpy, mujoco and LIBERO, so that it runs there too; it steps LIBERO's own loop, not ours.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np

TASKS = ("libero_spatial/0", "libero_object/0", "libero_10/0")
WAITING_STEPS = 10
ACTION_STEPS = 20
IMAGE_PX = 128
WAIT = np.array([0, 0, 0, 0, 0, 0, -1.0])


def measure_task(suite_name: str, index: int) -> dict[str, np.ndarray]:
    """Return states, object heights [m] and images of one task, from its initial state 0."""
    from libero.libero import benchmark
    from libero.libero.envs import OffScreenRenderEnv

    suite = benchmark.get_benchmark(suite_name)(task_order_index=0)
    env = OffScreenRenderEnv(
        bddl_file_name=suite.get_task_bddl_file_path(index), camera_heights=IMAGE_PX, camera_widths=IMAGE_PX
    )
    env.seed(0)
    env.reset()
    env.set_init_state(suite.get_task_init_states(index)[0])
    measured = {"start": env.get_sim_state()}
    for _ in range(WAITING_STEPS):
        obs, *_ = env.step(WAIT)
    domain = env.env
    measured["settled"] = env.get_sim_state()
    measured["image"] = np.array(obs["agentview_image"])
    bodies = [domain.obj_body_id[name] for name in sorted(domain.objects_dict)]
    measured["heights"] = np.array([domain.sim.data.body_xpos[body][2] for body in bodies])
    for action in np.random.default_rng(1).uniform(-0.5, 0.5, (ACTION_STEPS, 7)):
        obs, *_ = env.step(action)
    measured["acted"] = env.get_sim_state()
    measured["image_acted"] = np.array(obs["agentview_image"])
    env.close()
    return measured


def measure(path: Path, tasks: list[str]) -> None:
    """Write the measurements of every task to `path` (npz), under this interpreter's MuJoCo."""
    logging.disable(logging.WARNING)
    arrays = {}
    for task in tasks:
        suite, index = task.split("/")
        arrays |= {f"{task}/{key}": value for key, value in measure_task(suite, int(index)).items()}
    np.savez_compressed(path, version=mujoco.__version__, tasks=tasks, **arrays)


def row(reference: dict, other: dict, task: str) -> str:
    """Return one markdown row: how far `other` is from `reference` in `task`."""

    def gap(key: str) -> np.ndarray:
        return np.abs(reference[f"{task}/{key}"].astype(float) - other[f"{task}/{key}"].astype(float))

    return (
        f"| {other['version']} | {task} | {gap('settled').max():.1e} | {gap('acted').max():.1e} "
        f"| {gap('heights').max() * 1e3:.2f} | {other[f'{task}/heights'].max():.3f} "
        f"| {gap('image').mean():.2f} | {gap('image_acted').mean():.2f} |"
    )


def compare(paths: list[Path]) -> str:
    """Return a markdown table: every file against the first."""
    loaded = [dict(np.load(path)) for path in paths]
    header = (
        f"| MuJoCo (against {loaded[0]['version']}) | task | state, settled | state, after {ACTION_STEPS} actions "
        "| heights, settled [mm] | highest object [m] | image, settled | image, acted |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    rows = [row(loaded[0], other, str(task)) for task in loaded[0]["tasks"] for other in loaded[1:]]
    return "\n".join([header, *rows])


def main(arguments: list[str]) -> None:
    """Run one of the two commands; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("path", type=Path)
    measuring.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="SUITE/INDEX")
    commands.add_parser("compare").add_argument("paths", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    if options.command == "measure":
        measure(options.path, options.tasks)
    else:
        print(compare(options.paths))


if __name__ == "__main__":
    main(sys.argv[1:])
