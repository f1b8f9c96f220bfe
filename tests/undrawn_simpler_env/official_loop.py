"""Play episodes in SimplerEnv's own loop with given actions; say the robot's joints and its tool's pose at every step.

Run by the interpreter that has simpler_env, in SimplerEnv's folder, with the folder of this file on its PYTHONPATH:
`official_loop.py EPISODES STATES`, two JSON files.
"""

import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
from sapien.core import Pose
from transforms3d.euler import euler2quat

plots = ModuleType("simpler_env.utils.visualization")  # needs matplotlib and mediapy, which the small install lacks
plots.write_video = lambda *_, **__: None  # type: ignore[attr-defined]
sys.modules[plots.__name__] = plots

from simpler_env.evaluation import maniskill2_evaluator as official  # noqa: E402

made: list[Any] = []
build = official.build_maniskill2_env
official.build_maniskill2_env = lambda *given, **named: made.append(build(*given, **named)) or made[-1]


class Model:
    """Answers given actions and writes down what the simulator has come to."""

    def __init__(self, actions: np.ndarray) -> None:
        self.actions, self.states = actions, []

    def reset(self, sentence: str) -> None: ...

    def step(self, picture: np.ndarray, sentence: str) -> tuple[dict, dict]:
        """Return the next action."""
        action = self.actions[len(self.states)]
        self.look()
        parts = {"world_vector": action[:3], "rot_axangle": action[3:6], "gripper": action[6:]}
        return {}, {**parts, "terminate_episode": np.zeros(1)}

    def look(self) -> None:
        """Write the state down."""
        inner = made[-1].unwrapped
        parts = (inner.agent.robot.get_qpos(), inner.tcp.pose.p, inner.tcp.pose.q)
        self.states.append(np.hstack(parts).astype(np.float64).tolist())

    def visualize_epoch(self, *_: Any, **__: Any) -> None: ...


def played(episode: dict[str, Any]) -> list[list[float]]:
    """Return the states of an episode."""
    model = Model(np.array(episode["actions"]))
    where = {"obj_episode_id": episode["episode"]}
    if episode["object"] is not None:
        where = {"obj_init_x": episode["object"][0], "obj_init_y": episode["object"][1]}
    overlay = episode["overlay"] and f"./ManiSkill2_real2sim/data/real_inpainting/{episode['overlay']}"
    official.run_maniskill2_eval_single_episode(
        model,
        "actions",
        "google_robot_static",
        episode["env_id"],
        episode["scene"],
        *episode["robot"],
        (Pose(q=euler2quat(0, 0, episode["yaw"])) * Pose(q=[0, 0, 0, 1])).q,
        official.get_robot_control_mode("google_robot_static", "actions"),
        additional_env_build_kwargs=dict(episode["options"]),
        rgb_overlay_path=overlay or None,
        max_episode_steps=len(episode["actions"]),
        logging_dir=sys.argv[2] + ".logs",
        **where,
    )
    model.look()
    return model.states


if __name__ == "__main__":
    with open(sys.argv[1]) as asked:
        states = [played(episode) for episode in json.load(asked)]
    with open(sys.argv[2], "w") as answer:
        json.dump(states, answer)
