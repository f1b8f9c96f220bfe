"""Variant aggregation: no photograph; the scene is varied, one thing at a time, and success is averaged.

Sources: SimplerEnv at 4ab7178, `scripts/rt1_pick_coke_can_variant_agg.sh`, `rt1_move_near_variant_agg.sh`,
`rt1_drawer_variant_agg.sh` and `rt1_put_in_drawer_variant_agg.sh`, in their order. Their last two variants, other
orientations of the camera for the can and for move near, are left out: they are in no published average
(`tools/calc_metrics_evaluation_videos.py`, `camera_variants`, keeps them for the study of one policy's robustness).
"""

from collections.abc import Iterator
from dataclasses import replace

from vla_bench_envs.simpler_google.matching import APPLE_X_M, APPLE_Y_M, CAN, DRAWERS, NEAR, ORIENTATIONS
from vla_bench_envs.simpler_google.starts import Options, Playbook, Sweep

TABLES = ("Baked_sc1_staging_objaverse_cabinet1_h870", "Baked_sc1_staging_objaverse_cabinet2_h870")
BACKGROUNDS = ("google_pick_coke_can_1_v4_alt_background", "google_pick_coke_can_1_v4_alt_background_2")
LIGHTS = ("slightly_darker_lighting", "slightly_brighter_lighting")

ROOM, ROOMS = "frl_apartment_stage_simple", ("modern_bedroom_no_roof", "modern_office_no_roof")
RAYS: Options = (("shader_dir", "rt"),)


def _cans(orientation: str) -> Iterator[Sweep]:
    lying: Options = ((ORIENTATIONS[orientation], True),)
    can = replace(CAN, options=lying)
    crowded = replace(can, env_id="GraspSingleOpenedCokeCanDistractorInScene-v0")
    yield can
    yield from (replace(can, scene=table) for table in TABLES)
    yield crowded
    yield replace(crowded, options=(*lying, ("distractor_config", "more")))
    yield from (replace(can, scene=background) for background in BACKGROUNDS)
    yield from (replace(can, options=(*lying, (light, True))) for light in LIGHTS)


def _near() -> Iterator[Sweep]:
    near = replace(NEAR, env_id="MoveNearGoogleInScene-v0")
    yield near
    yield replace(near, options=(("no_distractor", True),))
    yield from (replace(near, scene=background) for background in BACKGROUNDS)
    yield from (replace(near, options=((light, True),)) for light in LIGHTS)
    yield from (replace(near, scene=table) for table in TABLES)


def _varied(sweep: Sweep, last: Options = ()) -> Iterator[Sweep]:
    """Yield a sweep at the cabinet in all of its surroundings; `last` are the options that the script gives last."""
    base = replace(sweep, options=(*RAYS, *last))
    yield base
    yield from (replace(base, scene=room) for room in ROOMS)
    for name, value in (
        ("light_mode", "brighter"),
        ("light_mode", "darker"),
        ("station_name", "mk_station2"),
        ("station_name", "mk_station3"),
    ):
        yield replace(base, options=(*RAYS, (name, value), *last))


def _drawer(verb: str, drawer: str) -> Playbook:
    env_id = f"{verb.title()}{drawer.title()}DrawerCustomInScene-v0"
    sweep = Sweep(env_id, ROOM, (0.65, 0.85, 3), (-0.2, 0.2, 3))
    return Playbook(f"{verb}_{drawer}_drawer", f"{verb} {drawer} drawer", 113, tuple(_varied(sweep)))


def _apple() -> Playbook:
    sweep = Sweep(
        "PlaceIntoClosedTopDrawerCustomInScene-v0", ROOM, (0.65, 0.65, 1), (-0.2, 0.2, 3),
        object_x_m=APPLE_X_M, object_y_m=APPLE_Y_M,
    )  # fmt: skip
    sentence = "open top drawer then place apple into top drawer"
    sweeps = tuple(_varied(sweep, (("model_ids", "apple"),)))
    return Playbook("place_apple_in_closed_top_drawer", sentence, 200, sweeps)


VARIANTS = (
    *(Playbook(f"pick_{lies}_coke_can", "pick coke can", 80, tuple(_cans(lies))) for lies in ORIENTATIONS),
    Playbook("move_near", "move one object near another", 80, tuple(_near())),
    *(_drawer(verb, drawer) for verb in ("open", "close") for drawer in DRAWERS),
    _apple(),
)
"""The eleven tasks. Starts: 225 a way the can lies, 480 of move near, 63 a drawer and direction, 189 of the apple."""
