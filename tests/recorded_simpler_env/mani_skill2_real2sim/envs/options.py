"""Recorded: what the environments of the Google robot can be built and reset with.

Paths are those of ManiSkill2_real2sim at ef7a4d4.
"""

from pathlib import Path
from typing import Any

STAGES = {  # data/hab2_bench_assets/stages, and `_load_arena_helper` of envs/custom_scenes/base_env.py
    "google_pick_coke_can_1_v4", "google_pick_coke_can_1_v4_alt_background",
    "google_pick_coke_can_1_v4_alt_background_2", "Baked_sc1_staging_objaverse_cabinet1_h870",
    "Baked_sc1_staging_objaverse_cabinet2_h870", "frl_apartment_stage_simple", "modern_bedroom_no_roof",
    "modern_office_no_roof", "dummy_drawer", "dummy_tabletop", "dummy",
}  # fmt: skip

PHOTOGRAPHS = {  # data/real_inpainting
    "google_coke_can_real_eval_1.png", "google_move_near_real_eval_1.png",
    *(f"open_drawer_{row}{place}.png" for row in "abc" for place in "012"),
}  # fmt: skip

ARMS = {  # assets/descriptions/googlerobot_description; "None" and None are "": envs/custom_scenes/base_env.py
    "", "None", None, "recolor_tabletop_visual_matching_1", "recolor_tabletop_visual_matching_2",
    "recolor_cabinet_visual_matching_1", "recolor_cabinet_visual_matching_gripper_only", "recolor_sim",
}  # fmt: skip

CONTROL_MODE = (  # agents/configs/google_robot/defaults.py, `controllers`
    "arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_interpolate_by_planner"
)

FLAG = {True, False}

BASE: dict[str, Any] = {
    # envs/sapien_env.py, `BaseEnv.__init__`, and `make` of utils/registration.py for the mode of observation
    "obs_mode": {"rgbd"}, "control_mode": {CONTROL_MODE}, "sim_freq": {513, 501}, "control_freq": {3},
    "shader_dir": {"ibl", "rt"}, "camera_cfgs": dict, "enable_shadow": FLAG,
    # envs/custom_scenes/base_env.py, `CustomSceneEnv.__init__`
    "robot": {"google_robot_static"}, "scene_name": STAGES, "urdf_version": ARMS, "disable_bad_material": FLAG,
    "rgb_overlay_path": (str, type(None)), "rgb_overlay_cameras": list,
    # Gymnasium's `make`
    "max_episode_steps": int,
}  # fmt: skip

CAN = {  # envs/custom_scenes/grasp_single_in_scene.py
    "slightly_darker_lighting": FLAG, "slightly_brighter_lighting": FLAG, "darker_lighting": FLAG,
    "upright": FLAG, "laid_vertically": FLAG, "lr_switch": FLAG,
}  # fmt: skip
NEAR = {  # envs/custom_scenes/move_near_in_scene.py
    "slightly_darker_lighting": FLAG, "slightly_brighter_lighting": FLAG, "original_lighting": FLAG,
    "ambient_only_lighting": FLAG, "no_distractor": FLAG,
}  # fmt: skip
DRAWER = {  # envs/custom_scenes/open_drawer_in_scene.py; stations: data/custom
    "light_mode": {None, "simple", "vertical", "darker", "brighter"}, "camera_mode": {None, "variant"},
    "station_name": {"mk_station", "mk_station2", "mk_station3", "mk_station4", "mk_station_recolor"},
}  # fmt: skip
PLACE = DRAWER | {  # envs/custom_scenes/place_in_closed_drawer_in_scene.py
    "model_ids": {"apple", "baked_apple_v2"},  # of data/custom/info_pick_custom_baked_tex_v1.json, what scripts name
    "force_advance_subtask_time_steps": int,
}

ENVIRONMENTS = {
    "GraspSingleOpenedCokeCanInScene-v0": CAN,
    "GraspSingleOpenedCokeCanDistractorInScene-v0": CAN | {"distractor_config": {"less", "more"}},
    "MoveNearGoogleInScene-v0": NEAR,
    "MoveNearGoogleBakedTexInScene-v0": NEAR,
    **{
        f"{verb}{drawer}DrawerCustomInScene-v0": DRAWER
        for verb in ("Open", "Close")
        for drawer in ("Top", "Middle", "Bottom")
    },
    "PlaceIntoClosedTopDrawerCustomInScene-v0": PLACE,
}


def check_build(env_id: str, kwargs: dict[str, Any]) -> None:
    """Refuse what the environment would not take."""
    if env_id not in ENVIRONMENTS:
        raise KeyError(f"Env {env_id} not found in registry")
    known = BASE | ENVIRONMENTS[env_id]
    for name, value in kwargs.items():
        if name not in known:
            raise TypeError(f"__init__() got an unexpected keyword argument {name!r}")
        allowed = known[name]
        if not (value in allowed if isinstance(allowed, set) else isinstance(value, allowed)):
            raise ValueError(f"{name}={value!r}")
    overlay = kwargs.get("rgb_overlay_path")
    if overlay is not None and (
        Path(overlay).parent.name != "real_inpainting" or Path(overlay).name not in PHOTOGRAPHS
    ):
        raise FileNotFoundError(f"rgb_overlay_path {overlay} is not found.")


def check_reset(env_id: str, options: dict[str, Any]) -> None:
    """Refuse options that the environment would not take or would ignore."""
    robot, objects = options["robot_init_options"], options["obj_init_options"]
    assert set(options) == {"robot_init_options", "obj_init_options"}
    # envs/custom_scenes/base_env.py, `_initialize_agent`: a position [m] and a quaternion (w, x, y, z) for SAPIEN
    assert set(robot) == {"init_xy", "init_rot_quat"}
    assert (robot["init_xy"].shape, robot["init_rot_quat"].shape) == ((2,), (4,))
    assert abs(float((robot["init_rot_quat"] ** 2).sum()) - 1) < 1e-6
    if env_id.startswith("MoveNear"):  # `reset`: 5 triplets x 6 pairs x 2 layouts
        assert set(objects) == {"episode_id"}
        assert type(objects["episode_id"]) is int
        assert 0 <= objects["episode_id"] < 60
    else:  # `_initialize_actors`; drawers get it from the scripts too and do not read it
        assert set(objects) == {"init_xy"}
        assert objects["init_xy"].shape == (2,)
