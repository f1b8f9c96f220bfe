"""What draws: a GPU's Vulkan driver where there is a GPU, else SwiftShader, which draws on the processor."""

import os
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from vla_bench_envs.simpler.errors import MissingVulkanError

NAMED = ("VK_ICD_FILENAMES", "VK_DRIVER_FILES")
"""Variables in which the Vulkan loader is told its drivers; what the user has set stays."""

ICD = "vk_swiftshader_icd.json"
"""SwiftShader's description of itself, beside its library."""

PLACES = (
    f"/usr/lib/chromium*/{ICD}",
    f"/usr/lib64/chromium*/{ICD}",
    f"/opt/google/chrome*/{ICD}",
    f"/snap/chromium/current/usr/lib/chromium-browser/{ICD}",
)
"""Where browsers of Debian, Fedora, Google and Ubuntu bring it."""


def prepare_driver() -> None:
    """Name SwiftShader to the Vulkan loader where there is no GPU; must come before SAPIEN is imported."""
    if sys.platform != "linux" or any(os.environ.get(name) for name in NAMED) or has_gpu():
        return
    found = swiftshader()
    if found is not None:
        os.environ["VK_ICD_FILENAMES"] = str(found)


def has_gpu() -> bool:
    """Return whether the kernel knows a device that may draw."""
    return Path("/dev/nvidiactl").exists() or any(Path("/dev/dri").glob("renderD*"))


def swiftshader() -> Path | None:
    """Return SwiftShader's description, from a browser of the system or one that Playwright has installed."""
    own = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    found = [path for place in PLACES for path in Path("/").glob(place.lstrip("/"))]
    return next(iter([*sorted(found), *sorted(own.glob(f"chromium*/chrome-linux*/{ICD}"))]), None)


@cache
def render_system() -> Any:
    """Return a `sapien.render.RenderSystem` on whatever can draw.

    It is kept: the last one to go takes the device's tables with it, which take SwiftShader 15 s to make. ManiSkill
    asks for the device "cpu" instead, which SAPIEN does not find under SwiftShader.

    Raises:
        MissingVulkanError: If nothing can.
    """
    try:
        return import_module("sapien.render").RenderSystem()
    except RuntimeError as caught:
        raise MissingVulkanError(caught, os.environ.get("VK_ICD_FILENAMES", "")) from caught
