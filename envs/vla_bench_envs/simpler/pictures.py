"""The policy's picture: what was drawn of robot and objects, in front of a photograph of the real scene.

ManiSkill draws at every reset and step; here a picture is drawn when it is read. Colour and segmentation come from one
pass, and of the segmentation only one look-up is made. Equal to ManiSkill's own picture bit for bit, which a test
asserts.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def draw(simulator: Any, camera: str, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Return the picture of the simulator's present state, scaled by the mean over areas where sizes differ."""
    sensor = simulator.scene.sensors[camera]
    simulator.scene.update_render(update_sensors=True, update_human_render_cameras=False)
    sensor.capture()
    seen = sensor.get_obs(rgb=True, depth=False, position=False, segmentation=True)
    segments = seen["segmentation"][0, ..., 0].cpu().numpy()
    drawn = seen["rgb"][0].cpu().numpy()
    photograph = simulator._rgb_overlay_images[camera].cpu().numpy()
    picture = np.where(
        is_shown(segments, simulator._segmentation_ids_to_keep.cpu().numpy())[..., None], drawn, photograph
    )
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def is_shown(segments: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return where a segment is one of those that are kept; both hold small integers of at least 0."""
    table = np.zeros(max(int(segments.max()), int(kept.max())) + 1, dtype=bool)
    table[kept] = True
    return table[segments]
