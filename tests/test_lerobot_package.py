"""The real classes of LeRobot behind the adapter, wherever the package can be imported (see `test_lerobot.py`)."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import TASK, PictureEnv

from vla_bench import registry
from vla_bench.testing import check_policy
from vla_bench.testing.promises import same

try:
    importlib.import_module("lerobot.policies.factory")
except (ImportError, RuntimeError, TypeError) as caught:  # the last two where its dependencies do not fit
    pytest.skip(f"lerobot cannot be imported: {caught}", allow_module_level=True)

from lerobot.configs.types import FeatureType, PolicyFeature  # type: ignore[import-not-found]
from lerobot.policies.act.configuration_act import ACTConfig  # type: ignore[import-not-found]
from lerobot.policies.act.modeling_act import ACTPolicy  # type: ignore[import-not-found]
from lerobot.policies.factory import make_pre_post_processors  # type: ignore[import-not-found]

IMAGE, WRIST, STATE = "observation.images.image", "observation.images.image2", "observation.state"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small ACT with random weights and made-up statistics, saved by LeRobot."""
    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
            WRIST: PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
            STATE: PolicyFeature(FeatureType.STATE, (8,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
        chunk_size=6, n_action_steps=3, dim_model=32, n_heads=2, dim_feedforward=64, n_encoder_layers=1,
        pretrained_backbone_weights=None, use_vae=False, device="cpu", push_to_hub=False,
    )  # fmt: skip
    of = {"min": 0.0, "max": 1.0, "mean": 0.3, "std": 0.5}
    shapes = {IMAGE: (3, 1, 1), WRIST: (3, 1, 1), STATE: (8,), "action": (7,)}
    stats = {key: {name: torch.full(shape, value) for name, value in of.items()} for key, shape in shapes.items()}
    ACTPolicy(config).save_pretrained(tmp_path)
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_real_policy_keeps_the_contract_and_answers_as_lerobots_own_loop(folder: Path) -> None:
    check_policy(registry.policy(f"lerobot:{folder}"), PictureEnv(), TASK)
    policy = registry.policy(f"lerobot:{folder}")
    obs, _ = PictureEnv().reset()
    policy.reset(TASK, 0)
    ours = np.concatenate([policy.act(obs).actions for _ in range(2)])
    inner = ACTPolicy.from_pretrained(folder)
    before, after = make_pre_post_processors(inner.config, str(folder))
    theirs = []
    with torch.inference_mode():
        for _ in range(6):
            batch = {IMAGE: torch.tensor(obs["agentview"]).permute(2, 0, 1)[None].float() / 255}
            batch |= {WRIST: torch.tensor(obs["robot0_eye_in_hand"]).permute(2, 0, 1)[None].float() / 255}
            batch |= {STATE: torch.tensor(obs["proprio"])[None], "task": [obs["instruction"]]}
            theirs.append(after(inner.select_action(before(batch))).clamp(-1, 1).numpy())
    assert same(ours, np.concatenate(theirs))
