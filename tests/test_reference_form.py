"""A reference VLA takes views, proprioception and the meaning of actions from its demonstrations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import CAMERAS, write_dataset

from vla_bench.errors import OptionError
from vla_bench.types import ActionSpec
from vla_bench_policies.reference import checkpoint as checkpoints
from vla_bench_policies.reference.actions import LEAST_RANGE, Range
from vla_bench_policies.reference.model import ModelConfig
from vla_bench_policies.reference.policy import ReferencePolicy
from vla_bench_policies.reference.training import command
from vla_bench_policies.reference.training.command import TrainReference
from vla_bench_policies.reference.training.form import form_of
from vla_bench_policies.reference.training.frames import UnfitDemonstrationsError
from vla_bench_policies.reference.training.growth import UngrowableError
from vla_bench_policies.reference.training.recipe import Recipe
from vla_bench_policies.reference.training.state import OtherTrainingError
from vla_bench_policies.reference.training.trainer import read_log

METRES = ActionSpec(translation_m=1.0, rotation_rad=1.0, gripper="open_is_positive")
SMALL = ModelConfig(image_px=32, patch_px=16, vision_width=16, vision_layers=1, width=16, layers=1, heads=2, hidden=32)
RECIPE = Recipe(model=SMALL, steps=60, batch=8, warmup_steps=2, validate_every=60, learning_rate=3e-3, ema=0.9)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(command.PRESETS, "cpu", RECIPE)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_policy_of_one_view_in_metres_is_trained_and_answers_so(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", cameras=("3rd_view_camera",), spec=METRES)
    plan = {"threads": 1, "cache": tmp_path / "cache", "out": tmp_path / "out"}
    assert TrainReference(data=(data,), given="all", **plan).run() == 0
    found = checkpoints.load(tmp_path / "out" / "checkpoint.safetensors")
    config = found.model.config
    assert (config.cameras, config.proprio_entries, found.action_spec) == (
        ("3rd_view_camera",), tuple(range(8)), METRES,
    )  # fmt: skip
    losses = [row["chunk"] for row in read_log(tmp_path / "out") if "chunk" in row]
    assert losses[-1] < 1.0
    assert "--given all" in found.history["command"]
    policy = ReferencePolicy(str(tmp_path / "out" / "checkpoint.safetensors"))
    assert (policy.cameras, policy.action_spec) == (("3rd_view_camera",), METRES)


def test_demonstrations_without_a_word_about_actions_are_liberos(tmp_path: Path) -> None:
    form = form_of([write_dataset(tmp_path / "data")])
    assert (form.cameras, form.action_spec) == (CAMERAS, ActionSpec())
    assert form.fitted(ModelConfig(), "fingers") == ModelConfig()


def test_demonstrations_of_two_robots_are_refused(tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "one")
    other = write_dataset(tmp_path / "other", cameras=("above",), spec=METRES)
    with pytest.raises(
        UnfitDemonstrationsError, match=r"/other has cameras \('above',\), action_spec .*what .*/one has"
    ):
        form_of([one, other])


def test_training_does_not_begin_with_weights_whose_actions_mean_something_else(tmp_path: Path) -> None:
    plan = {"threads": 1, "cache": tmp_path / "cache"}
    data = write_dataset(tmp_path / "libero")
    TrainReference(data=(data,), out=tmp_path / "a", steps=1, **plan).run()
    metres = write_dataset(tmp_path / "metres", spec=METRES)
    begun = TrainReference(data=(metres,), out=tmp_path / "b", begin=str(tmp_path / "a/checkpoint.safetensors"), **plan)
    with pytest.raises(UngrowableError, match=r"in their actions translation_m=0\.05 against 1\.0"):
        begun.run()


def test_training_begins_with_another_robots_weights_where_it_is_asked_to(tmp_path: Path) -> None:
    plan = {"threads": 1, "cache": tmp_path / "cache"}
    libero = write_dataset(tmp_path / "libero")
    TrainReference(data=(libero,), out=tmp_path / "a", steps=1, **plan).run()
    first = tmp_path / "a/checkpoint.safetensors"
    metres = write_dataset(tmp_path / "metres", cameras=("above",), spec=METRES, reach=0.05)
    asked = {"data": (metres,), "out": tmp_path / "b", "begin": str(first), "steps": 1} | plan
    TrainReference(transfer=True, given="all", **asked).run()
    before, found = checkpoints.load(first), checkpoints.load(tmp_path / "b/checkpoint.safetensors")
    assert (found.model.config.cameras, found.action_spec) == (("above",), METRES)
    assert found.actions.widths[0] == pytest.approx(before.actions.widths[0] / 20)
    assert f"--begin {first} --transfer --data metres" in found.history["command"]
    assert found.history["before"]["demonstrations"] == before.history["demonstrations"]
    with pytest.raises(OptionError, match="--transfer is True; expected --begin beside it"):
        TrainReference(data=(metres,), out=tmp_path / "c", transfer=True, **plan).run()
    with pytest.raises(OtherTrainingError, match="begin"):
        TrainReference(given="all", **asked | {"begin": ""}).run()


def test_ranges_of_actions_are_as_wide_in_metres_as_in_liberos_units() -> None:
    values = np.random.default_rng(0).normal(0, 1e-4, (200, 7))
    widths = Range.of_actions(values, METRES).widths
    np.testing.assert_allclose(widths, [0.005] * 3 + [0.05] * 3 + [0.1])
    assert Range.of_actions(values, ActionSpec()) == Range.of(values, LEAST_RANGE)


def test_the_recipe_that_is_written_down_is_that_of_the_demonstrations(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", cameras=("above",), spec=METRES)
    TrainReference(data=(data,), out=tmp_path / "out", steps=1, threads=1, cache=tmp_path / "cache").run()
    written = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert (written["model"]["cameras"], written["model"]["proprio_entries"]) == (["above"], [6, 7])
