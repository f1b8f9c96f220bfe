"""Recorded: sentences, infos and statistics of the four kinds of task; thresholds are the originals', physics is not.

Paths are those of ManiSkill2_real2sim at ef7a4d4. Values have the originals' types, NumPy's among them.
"""

from typing import Any

import numpy as np

TRIPLETS = (  # envs/custom_scenes/move_near_in_scene.py, `_setup_obj_configs`, in the words of the sentences
    ("blue plastic bottle", "pepsi can", "orange"),
    ("7up can", "apple", "sponge"),
    ("coke can", "redbull can", "apple"),
    ("sponge", "blue plastic bottle", "7up can"),
    ("orange", "pepsi can", "redbull can"),
)
PAIRS = [(source, target) for source in range(3) for target in range(3) if source != target]


class Can:
    """envs/custom_scenes/grasp_single_in_scene.py."""

    sentence, is_final = "pick coke can", True
    facts: dict[str, Any] = {"model_id": "opened_coke_can", "model_scale": 1.0, "distractor_model_ids": None}

    def begin(self, objects: dict[str, Any]) -> None:
        """Lay the can down."""
        self.stats: dict[str, Any] = {"n_lift_significant": 0, "consec_grasp": False, "grasped": False}

    def before_step(self, elapsed: int) -> None:
        """Do nothing."""

    def evaluate(self, tool: np.ndarray, finger: float) -> dict[str, Any]:
        """Say that a can between closed fingers moves with them."""
        grasped, rise = finger > 0.9, tool[2] - 0.9
        lifted = grasped and rise > 0.01
        self.stats["n_lift_significant"] += int(lifted and rise > 0.02)
        self.stats["grasped"] = self.stats["grasped"] or grasped
        success = lifted or self.stats["n_lift_significant"] >= 5
        return {"is_grasped": grasped, "lifted_object": lifted, "success": success, "episode_stats": self.stats}


class Near:
    """envs/custom_scenes/move_near_in_scene.py."""

    is_final = True

    def begin(self, objects: dict[str, Any]) -> None:
        """Choose objects by the episode's number."""
        number = objects["episode_id"]
        source, target = (TRIPLETS[number // 12][which] for which in PAIRS[number % 6])
        self.sentence = f"move {source} near {target}"
        self.facts = {"episode_id": number, "episode_source_obj_name": source, "episode_target_obj_name": target}

    def before_step(self, elapsed: int) -> None:
        """Do nothing."""

    def evaluate(self, tool: np.ndarray, finger: float) -> dict[str, Any]:
        """Say that the object is where the tool is."""
        stats = {
            "all_obj_keep_height": True,
            "moved_correct_obj": np.bool_(abs(tool[1] - 0.2) > 0.03),
            "moved_wrong_obj": False,
            "near_tgt_obj": np.bool_(abs(tool[1] - 0.2) > 0.2),
            "is_closest_to_tgt": True,
        }
        return {**stats, "success": stats["near_tgt_obj"], "episode_stats": stats}


class Drawer:
    """envs/custom_scenes/open_drawer_in_scene.py."""

    is_final = True

    def __init__(self, verb: str, drawer: str, kwargs: dict[str, Any]) -> None:
        self.verb, self.sentence = verb, f"{verb} {drawer} drawer"
        self.facts = {"station_name": kwargs.get("station_name"), "light_mode": kwargs.get("light_mode")}

    def begin(self, objects: dict[str, Any]) -> None:
        """Close the drawer, or open it by 0.2 m to be closed."""
        self.stats: dict[str, Any] = {"qpos": 0.0}

    def before_step(self, elapsed: int) -> None:
        """Do nothing."""

    def evaluate(self, tool: np.ndarray, finger: float) -> dict[str, Any]:
        """Say that the drawer moves with the tool."""
        qpos = np.float32(max(0.0, (0.0 if self.verb == "open" else 0.2) + 0.5 - tool[0]))
        self.stats["qpos"] = f"{qpos:.3f}"
        success = qpos >= 0.15 if self.verb == "open" else qpos <= 0.05
        return {"success": success, "qpos": qpos, "episode_stats": self.stats}


class Place:
    """envs/custom_scenes/place_in_closed_drawer_in_scene.py."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        self.forced = kwargs.get("force_advance_subtask_time_steps", 100)
        self.facts = {"station_name": kwargs.get("station_name"), "light_mode": kwargs.get("light_mode")}

    def begin(self, objects: dict[str, Any]) -> None:
        """Begin with the drawer."""
        self.is_final = False
        self.stats: dict[str, Any] = {"qpos": 0.0, "is_drawer_open": False, "has_contact": 0}

    @property
    def sentence(self) -> str:
        """Return the sentence of the sub-task; `baked` and `v2` are no words of it."""
        return "place apple into top drawer" if self.is_final else "open top drawer"

    def before_step(self, elapsed: int) -> None:
        """Go on to the second sub-task after 100 steps."""
        self.is_final = self.is_final or elapsed >= self.forced

    def evaluate(self, tool: np.ndarray, finger: float) -> dict[str, Any]:
        """Say that the drawer moves with the tool, and that a low tool drops the apple into it."""
        qpos = np.float32(max(0.0, 0.5 - tool[0]))
        self.stats["qpos"] = qpos
        self.stats["is_drawer_open"] = self.stats["is_drawer_open"] or qpos >= 0.15
        self.stats["has_contact"] += np.bool_(tool[2] < 0.8)
        success = self.is_final and qpos >= 0.05 and self.stats["has_contact"] >= 1
        return {"success": success, "episode_stats": self.stats}


def task_of(env_id: str, kwargs: dict[str, Any]) -> Any:
    """Return the task that an environment plays."""
    if env_id.startswith("GraspSingle"):
        return Can()
    if env_id.startswith("MoveNear"):
        return Near()
    if env_id.startswith("Place"):
        return Place(kwargs)
    verb = "open" if env_id.startswith("Open") else "close"
    return Drawer(verb, env_id[len(verb) :].partition("Drawer")[0].lower(), kwargs)
