"""A world of two cameras and moving squares for fast tests of methods on a small reference VLA: never a benchmark."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from vla_bench.types import Task
from vla_bench_policies.reference.actions import Range
from vla_bench_policies.reference.checkpoint import Checkpoint
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA

SMALL = ModelConfig(image_px=32, patch_px=4, vision_width=32, vision_layers=1, width=32, layers=4, heads=4, hidden=80)
TASK = Task("pictures@1", 0, "drawer", "open the drawer", horizon=30, n_initial_states=5)


def save_checkpoint(path: Path, seed: int = 3) -> Path:
    """Random weights, large enough that every row matters."""
    torch.manual_seed(seed)
    model = ReferenceVLA(SMALL)
    for weight in model.decoder.parameters():
        weight.data *= 1.5
    Checkpoint(model, Range((-0.5,) * 7, (0.5,) * 7), Range((-1.0,) * 8, (1.0,) * 8)).save(path)
    return path


class PictureEnv(gymnasium.Env):
    """Three bright squares on noise, one of which the action moves; nothing can be achieved."""

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        box = spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.observation_space = spaces.Dict(
            dict.fromkeys(SMALL.cameras, box)
            | {"proprio": spaces.Box(-9, 9, (8,), np.float32), "instruction": spaces.Text(40)}
        )
        self.action_space = spaces.Box(-1, 1, (7,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        rng = np.random.default_rng((options or {}).get("init_state", 0))
        self._ground = rng.integers(20, 80, (2, 32, 32, 3), dtype=np.uint8)
        self._places = rng.uniform(4, 24, (2, 3, 2))
        self._state = np.zeros(8, np.float32)
        self._n_steps = 0
        return self._observe(), {"success": False, "init_state_sha256": 64 * "0"}

    def step(self, action):
        self._n_steps += 1
        self._state[:7] = np.clip(self._state[:7] + 0.05 * np.asarray(action, np.float32), -5, 5)
        self._places[:, 0] = (self._places[:, 0] + 2 * np.clip(action, -1, 1)[:2] + 1.3) % 26
        self._places[:, 1] = (self._places[:, 1] + 1.1) % 26  # something moves whatever is done
        return self._observe(), 0.0, False, self._n_steps >= TASK.horizon, {"success": False}

    def _observe(self):
        pictures = self._ground.copy()
        for view, places in enumerate(self._places):
            for index, (row, column) in enumerate(places.astype(int)):
                pictures[view, row : row + 6, column : column + 6] = 120 + 60 * index
        views = dict(zip(SMALL.cameras, pictures, strict=True))
        return {**views, "proprio": self._state.copy(), "instruction": TASK.instruction}
