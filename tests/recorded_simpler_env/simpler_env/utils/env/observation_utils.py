"""Recorded: `simpler_env/utils/env/observation_utils.py`."""

from typing import Any

import numpy as np


def get_image_from_maniskill2_obs_dict(env: Any, obs: dict[str, Any], camera_name: str | None = None) -> np.ndarray:
    """Return the picture of a camera, by default of the one on the head."""
    return obs["image"]["overhead_camera" if camera_name is None else camera_name]["rgb"]
