"""What `vla-bench doctor` should know about LIBERO."""

import os
from collections.abc import Iterator

from vla_bench.doctor import Finding
from vla_bench.errors import VlaBenchError
from vla_bench.protocol import RenderProfile
from vla_bench_envs.libero.startup import check_mujoco, libero_path, load_mujoco


def diagnose() -> Iterator[Finding]:
    """Yield findings on the pinned physics, LIBERO's files and off-screen drawing."""
    try:
        check_mujoco()
        yield Finding("mujoco", True, "the protocol's version")
    except VlaBenchError as caught:
        yield Finding("mujoco", False, str(caught))
    try:
        yield Finding("libero", True, f"{sum(1 for _ in libero_path('bddl_files').iterdir())} suites of problem files")
    except VlaBenchError as caught:
        yield Finding("libero", False, str(caught))
        return
    yield _drawing()


def _drawing() -> Finding:
    """Draw nothing on a context of 64 px, which needs all that a picture needs."""
    from vla_bench_envs.libero.rendering import Graphics

    try:
        graphics = Graphics(load_mujoco().MjModel.from_xml_string("<mujoco/>"), 64, RenderProfile())
    except VlaBenchError as caught:
        return Finding("opengl", False, str(caught))
    renderer = graphics.renderer()
    graphics.close()
    return Finding("opengl", True, f"{renderer} (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')})")
