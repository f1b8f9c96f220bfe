"""Recorded: `simpler_env/utils/env/env_builder.py`."""

from typing import Any

from mani_skill2_real2sim.envs import Recorded


def build_maniskill2_env(env_name: str, **kwargs: Any) -> Recorded:
    """Make an environment; a photograph is by default for the camera on the head."""
    if kwargs.get("rgb_overlay_path") is not None:
        assert "google_robot_static" in kwargs["robot"]
        kwargs.setdefault("rgb_overlay_cameras", ["overhead_camera"])
    return Recorded(env_name, **kwargs)
