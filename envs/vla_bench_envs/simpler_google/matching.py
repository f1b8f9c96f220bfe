"""Visual matching: what is behind robot and objects is a photograph, and the arm is drawn in four colours.

Sources: SimplerEnv at 4ab7178, `scripts/rt1_pick_coke_can_visual_matching.sh`, `rt1_move_near_visual_matching.sh`,
`rt1_drawer_visual_matching.sh` and `rt1_put_in_drawer_visual_matching.sh`. Octo's scripts have the same starts; its
script for the can asks for 501 Hz of physics instead of 513.
"""

from dataclasses import replace

from vla_bench_envs.simpler_google.starts import Options, Playbook, Sweep

ARMS = (
    "None",
    "recolor_tabletop_visual_matching_1",
    "recolor_tabletop_visual_matching_2",
    "recolor_cabinet_visual_matching_1",
)
"""`urdf_version` in the order of the scripts on the table; `None` is what the scripts pass, as a word."""

ARMS_AT_CABINET = (ARMS[3], ARMS[1], ARMS[2], ARMS[0])
"""`urdf_version` in the order of the scripts at the cabinet."""

ORIENTATIONS = {"horizontal": "lr_switch", "vertical": "laid_vertically", "standing": "upright"}
"""How a can lies, and the option that lays it so. Source: SimplerEnv, `tools/calc_metrics_evaluation_videos.py`."""

DRAWERS = ("top", "middle", "bottom")

CAN = Sweep(
    "GraspSingleOpenedCokeCanInScene-v0", "google_pick_coke_can_1_v4", (0.35, 0.35, 1), (0.20, 0.20, 1),
    object_x_m=(-0.35, -0.12, 5), object_y_m=(-0.02, 0.42, 5),
)  # fmt: skip

NEAR = Sweep(
    "MoveNearGoogleBakedTexInScene-v0", "google_pick_coke_can_1_v4", (0.35, 0.35, 1), (0.21, 0.21, 1), -0.09,
    n_episodes=60,
)  # fmt: skip

PLACES = {
    "a0": (0.644, -0.179, -0.03),
    "a1": (0.765, -0.182, -0.02),
    "a2": (0.889, -0.203, -0.06),
    "b0": (0.652, 0.009, 0.0),
    "b1": (0.752, 0.009, 0.0),
    "b2": (0.851, 0.035, 0.0),
    "c0": (0.665, 0.224, 0.0),
    "c1": (0.765, 0.222, -0.025),
    "c2": (0.865, 0.222, -0.025),
}
"""Where the robot stands before the cabinet: x [m], y [m] and turn [rad], by the name of the photograph."""

CABINET: Options = (
    ("shader_dir", "rt"),  # --enable-raytracing
    ("station_name", "mk_station_recolor"),
    ("light_mode", "simple"),
    ("disable_bad_material", True),
)

APPLE_X_M, APPLE_Y_M = (-0.08, -0.02, 3), (-0.02, 0.08, 3)


def at_cabinet(env_id: str, place: str, options: Options) -> Sweep:
    """Return the one start of a drawer at one of the nine places."""
    x, y, yaw = PLACES[place]
    overlay = f"open_drawer_{place}.png"
    return Sweep(env_id, "dummy_drawer", (x, x, 1), (y, y, 1), yaw, overlay=overlay, options=options)


def _can(orientation: str) -> Playbook:
    overlay = "google_coke_can_real_eval_1.png"
    sweeps = (
        replace(CAN, overlay=overlay, options=((ORIENTATIONS[orientation], True), ("urdf_version", arm)))
        for arm in ARMS
    )
    return Playbook(f"pick_{orientation}_coke_can", "pick coke can", 80, tuple(sweeps))


def _near() -> Playbook:
    overlay = "google_move_near_real_eval_1.png"
    sweeps = (replace(NEAR, overlay=overlay, options=(("urdf_version", arm),)) for arm in ARMS)
    return Playbook("move_near", "move one object near another", 80, tuple(sweeps))


def _drawer(verb: str, drawer: str) -> Playbook:
    env_id = f"{verb.title()}{drawer.title()}DrawerCustomInScene-v0"
    sweeps = (
        at_cabinet(env_id, place, (*CABINET, ("urdf_version", arm))) for arm in ARMS_AT_CABINET for place in PLACES
    )
    return Playbook(f"{verb}_{drawer}_drawer", f"{verb} {drawer} drawer", 113, tuple(sweeps))


def _apple() -> Playbook:
    sweeps = (
        replace(
            at_cabinet(
                "PlaceIntoClosedTopDrawerCustomInScene-v0",
                place,
                (*CABINET, ("urdf_version", arm), ("model_ids", "baked_apple_v2")),
            ),
            object_x_m=APPLE_X_M,
            object_y_m=APPLE_Y_M,
        )
        for arm in ARMS_AT_CABINET
        for place in ("a0", "b0", "c0")
    )
    sentence = "open top drawer then place apple into top drawer"
    return Playbook("place_apple_in_closed_top_drawer", sentence, 200, tuple(sweeps))


MATCHING = (
    *(_can(orientation) for orientation in ORIENTATIONS),
    _near(),
    *(_drawer(verb, drawer) for verb in ("open", "close") for drawer in DRAWERS),
    _apple(),
)
"""The eleven tasks. Starts: 100 a way the can lies, 240 of move near, 36 a drawer and direction, 108 of the apple."""
