"""Recorded: `simpler_env/__init__.py` imports the environments and lists the prepackaged ones."""

import mani_skill2_real2sim.envs  # noqa: F401 - as the original does

ENVIRONMENTS = [
    "google_robot_pick_coke_can", "google_robot_pick_horizontal_coke_can", "google_robot_pick_vertical_coke_can",
    "google_robot_pick_standing_coke_can", "google_robot_pick_object", "google_robot_move_near_v0",
    "google_robot_move_near_v1", "google_robot_move_near", "google_robot_open_drawer", "google_robot_open_top_drawer",
    "google_robot_open_middle_drawer", "google_robot_open_bottom_drawer", "google_robot_close_drawer",
    "google_robot_close_top_drawer", "google_robot_close_middle_drawer", "google_robot_close_bottom_drawer",
    "google_robot_place_in_closed_drawer", "google_robot_place_in_closed_top_drawer",
    "google_robot_place_in_closed_middle_drawer", "google_robot_place_in_closed_bottom_drawer",
    "google_robot_place_apple_in_closed_top_drawer", "widowx_spoon_on_towel", "widowx_carrot_on_plate",
    "widowx_stack_cube", "widowx_put_eggplant_in_basket",
]  # fmt: skip
