"""A policy knows where it has sent the hand: the sum of what it answered, from where the hand was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from vla_bench import registry
from vla_bench.types import ActionSpec
from vla_bench_envs.simpler.demonstrations.commanded import commanded
from vla_bench_policies.reference.actions import Range
from vla_bench_policies.reference.checkpoint import Checkpoint, load
from vla_bench_policies.reference.commanded import FARTHEST_M, CommandedPose
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA
from vla_bench_policies.reference.policy import ReferencePolicy

METRES = ActionSpec(translation_m=1.0, rotation_rad=1.0)
TASK = registry.suite("libero-object@1").tasks()[0]
SMALL = ModelConfig(
    cameras=("front",), image_px=32, patch_px=8, vision_width=32, vision_layers=1, width=32, layers=2, heads=4,
    hidden=80, proprio_entries=tuple(range(8)),
)  # fmt: skip


def way(n: int) -> np.ndarray:
    """Return n actions that move and turn."""
    return np.random.default_rng(0).normal(0, 0.01, (n, 7))


def test_the_sum_is_what_a_controller_adds_up() -> None:
    proprio = np.array([0.2, 0.1, 0.3, 0.0, 1.5, 0.0, 0.04, 0.04], np.float32)
    pose, actions = CommandedPose(METRES), way(9)
    np.testing.assert_array_equal(pose.given(proprio), proprio)
    pose.send(actions)
    told, turned = pose.given(proprio), Rotation.from_rotvec(proprio[3:6])
    for action in actions:
        turned = Rotation.from_rotvec(action[3:6]) * turned
    np.testing.assert_allclose(told[:3], proprio[:3] + actions[:, :3].sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(told[3:6], turned.as_rotvec(), atol=1e-6)
    np.testing.assert_array_equal(told[6:], proprio[6:])


def test_a_sum_far_from_the_hand_begins_anew_where_the_hand_is() -> None:
    pose, proprio = CommandedPose(METRES), np.zeros(8, np.float32)
    pose.given(proprio)
    pose.send(np.array([[1.01 * FARTHEST_M, 0, 0, 0, 0, 0, 1.0]]))
    np.testing.assert_array_equal(pose.given(proprio), proprio)


@pytest.mark.parametrize("anchor", [0, 5])
def test_what_is_worked_out_of_a_demonstration_is_what_a_policy_adds_up(anchor: int) -> None:
    actions, pose = way(8), CommandedPose(METRES)
    sent = [np.array([0.2, 0.1, 0.3, 0.1, 1.4, 0.2, 0.04, 0.04], np.float32)]
    pose.given(sent[0])
    for action in actions[:-1]:
        pose.send(action[None])
        sent.append(pose.given(sent[-1]))
    late = np.stack(sent)
    late[:, :6] += np.random.default_rng(1).normal(0, 0.003, (8, 6)).astype(np.float32)
    late[anchor] = sent[anchor]
    np.testing.assert_allclose(commanded(late, actions, anchor), np.stack(sent), atol=1e-6)


def test_a_checkpoint_says_which_pose_it_is_given_and_the_policy_keeps_to_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    measured = Checkpoint(
        ReferenceVLA(SMALL), Range((-0.01,) * 7, (0.01,) * 7), Range((-1.0,) * 8, (1.0,) * 8), action_spec=METRES
    )
    sent = replace(measured, commanded=True)
    measured.save(tmp_path / "measured.safetensors")
    sent.save(tmp_path / "sent.safetensors")
    assert [load(tmp_path / f"{name}.safetensors").commanded for name in ("measured", "sent")] == [False, True]
    assert measured.sha256 != sent.sha256
    obs = {
        "front": np.full((32, 32, 3), 90, np.uint8), "proprio": np.zeros(8, np.float32), "instruction": "put it there"
    }  # fmt: skip
    answers = {}
    for name in ("measured", "sent"):
        policy = ReferencePolicy(str(tmp_path / f"{name}.safetensors"), execute=4)
        policy.reset(TASK, 0)
        answers[name] = [policy.act(obs).actions for _ in range(2)]
        policy.reset(TASK, 0)
        np.testing.assert_array_equal(policy.act(obs).actions, answers[name][0])
    np.testing.assert_array_equal(answers["measured"][0], answers["sent"][0])
    np.testing.assert_array_equal(*answers["measured"])
    assert np.abs(answers["sent"][0] - answers["sent"][1]).max() > 0
