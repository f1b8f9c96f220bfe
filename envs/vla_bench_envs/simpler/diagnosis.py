"""What `vla-bench doctor` should know about SIMPLER."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

from vla_bench.doctor import Finding
from vla_bench.errors import VlaBenchError
from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.startup import VERSIONS, check_versions
from vla_bench_envs.simpler.vulkan import prepare_driver, render_system


def diagnose() -> Iterator[Finding]:
    """Yield findings on the simulator's versions, its assets and what draws; all is well without the extra."""
    if find_spec("mani_skill") is None:
        yield Finding("simpler", True, "not installed (pip install 'vla-bench[simpler]')")
        return
    try:
        check_versions()
        yield Finding("simpler", True, ", ".join(f"{name} {version}" for name, version in VERSIONS.items()))
    except VlaBenchError as caught:
        yield Finding("simpler", False, str(caught))
        return
    try:
        assets.check()
        yield Finding("simpler assets", True, f"{assets.kind()}, in {assets.folder()}")
    except VlaBenchError as caught:
        yield Finding("simpler assets", False, str(caught))
    yield _drawing()


def _drawing() -> Finding:
    prepare_driver()
    try:
        device = render_system().device.name
    except VlaBenchError as caught:
        return Finding("vulkan", False, str(caught))
    return Finding("vulkan", True, f"{device} (VK_ICD_FILENAMES={os.environ.get('VK_ICD_FILENAMES', '')})")
