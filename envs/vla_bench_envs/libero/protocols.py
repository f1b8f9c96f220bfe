"""Presets of everything that decides a LIBERO episode besides policy, task and initial state.

Every preset exists twice: as published results saw it, and under a `-fast` name for machines without a GPU.
A render profile changes pixels, so the two never share a hash and their results never share a table.
"""

from dataclasses import replace

from vla_bench.errors import UnknownNameError
from vla_bench.protocol import Protocol, RenderProfile

CONTROL_HZ = 20.0
"""Control steps per simulated second. Source: LIBERO, `libero/envs/env_wrapper.py`, `control_freq=20`."""

SETTLE_STEPS = 10
"""Steps before the first observation, in which objects fall onto the table. Source: openvla, openvla-oft and lerobot
alike (`num_steps_wait = 10`; openvla: `experiments/robot/libero/run_libero_eval.py`)."""

SETTLE_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
"""Stand still with an open gripper. Source: `get_libero_dummy_action` of the same three projects."""

FAST = RenderProfile(name="fast", mesh_fraction=0.1, multisampling=False, reflections=False)
"""Ten times cheaper in software OpenGL; the measured pixel difference is in docs/mujoco.md."""

AGENT, WRIST = "agentview", "robot0_eye_in_hand"

_PUBLISHED = (
    Protocol(
        name="openvla",
        cameras=(AGENT,),
        image_size=256,  # run_libero_eval.py: get_libero_env(..., resolution=256)
        rotate_180=True,  # libero_utils.py, get_libero_image: img[::-1, ::-1]
        settle_steps=SETTLE_STEPS,
        settle_action=SETTLE_ACTION,
        control_hz=CONTROL_HZ,
    ),
    Protocol(
        name="openvla-oft",
        cameras=(AGENT, WRIST),  # run_libero_eval.py: num_images_in_input=2, use_proprio=True
        image_size=256,  # run_libero_eval.py: env_img_res=256
        rotate_180=True,  # libero_utils.py, get_libero_image and get_libero_wrist_image: img[::-1, ::-1]
        settle_steps=SETTLE_STEPS,
        settle_action=SETTLE_ACTION,
        control_hz=CONTROL_HZ,
    ),
    Protocol(
        name="lerobot",
        cameras=(AGENT, WRIST),
        image_size=256,  # envs/libero.py: observation_width=256; its configs.py says 360, not always handed on
        rotate_180=True,  # the environment's processor flips both axes, as envs/libero.py does in render()
        settle_steps=SETTLE_STEPS,
        settle_action=SETTLE_ACTION,
        control_hz=CONTROL_HZ,
        horizons=(("libero-spatial@1", 280),),  # envs/libero.py: TASK_SUITE_MAX_STEPS; 220 in openvla
    ),
    Protocol(
        name="reference",
        cameras=(AGENT, WRIST),
        image_size=128,  # LIBERO's own resolution: env_wrapper.py, camera_heights=128
        rotate_180=False,
        settle_steps=SETTLE_STEPS,
        settle_action=SETTLE_ACTION,
        control_hz=CONTROL_HZ,
    ),
)

PROTOCOLS: dict[str, Protocol] = {
    preset.name: preset
    for published in _PUBLISHED
    for preset in (published, replace(published, name=f"{published.name}-fast", render=FAST))
}
"""Presets by name."""


def protocol(name: str) -> Protocol:
    """Return the preset of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("LIBERO protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
