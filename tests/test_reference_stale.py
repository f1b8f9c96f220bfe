"""A policy may meet its own stale rows while it learns: what it then answers is what the token cache will answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import CAMERAS, write_dataset

from vla_bench.types import ActionSpec
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA
from vla_bench_policies.reference.training import frames, trainer
from vla_bench_policies.reference.training.frames import UnfitDemonstrationsError
from vla_bench_policies.reference.training.recipe import Recipe, Staleness
from vla_bench_policies.reference.training.stale import StaleWindows, patch_changes
from vla_bench_policies.reference.training.trainer import Trainer, read_log

SMALL = ModelConfig(image_px=32, patch_px=16, vision_width=16, vision_layers=1, width=16, layers=2, heads=2, hidden=32)
STALE = Staleness(windows=4, window=3, strides=(1, 2))
RECIPE = Recipe(model=SMALL, steps=12, batch=4, warmup_steps=2, validate_every=6, learning_rate=3e-3, stale=STALE)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> frames.Demonstrations:
    dataset = write_dataset(tmp_path_factory.mktemp("demonstrations") / "small")
    return frames.load([dataset], CAMERAS, 32, tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(data: frames.Demonstrations, directory: Path, recipe: Recipe = RECIPE) -> Trainer:
    return Trainer(recipe, data, directory, CPU, ActionSpec())


def windows(data: frames.Demonstrations, trained: Trainer, staleness: Staleness = STALE) -> StaleWindows:
    return StaleWindows(data, trained._batches, staleness, seed=0)


def model_of(trained: Trainer) -> ReferenceVLA:
    assert isinstance(trained.state.model, ReferenceVLA)
    return trained.state.model


def test_with_nothing_reused_a_window_is_answered_as_single_frames_are(data, tmp_path: Path) -> None:
    trained = made(data, tmp_path)
    model = model_of(trained)
    answered = windows(data, trained, replace(STALE, most=0.0)).training(model, 0, slice(None))
    assert len(answered) == STALE.window
    for chunk, batch in answered:
        alone = model(batch.images, batch.tokens, batch.proprio, batch.bins).chunk
        torch.testing.assert_close(chunk, alone, rtol=0, atol=1e-5)


def test_the_first_answer_is_full_and_later_ones_are_stale(data, tmp_path: Path) -> None:
    trained = made(data, tmp_path)
    model = model_of(trained)
    stale, full = (windows(data, trained).validation(model, 4, reuse, still=False)[0] for reuse in (0.75, 0.0))
    torch.testing.assert_close(stale[0][0], full[0][0])
    assert (stale[1][0] - full[1][0]).abs().max() > 1e-4


def test_rotation_recomputes_every_row_in_its_turn_and_equally_many_at_a_time(data, tmp_path: Path) -> None:
    drawn = windows(data, made(data, tmp_path), replace(STALE, rotate=4))
    turn = drawn._turns(np.random.default_rng(0), 5, SMALL.n_visual)
    due = np.stack([drawn._due(index, turn) for index in range(3, 7)])
    assert (due.sum(axis=0) == 1).all()
    assert (due.sum(axis=2) == SMALL.n_visual / 4).all()
    assert not windows(data, made(data, tmp_path))._due(1, turn).any()


@pytest.mark.parametrize("rotate", [1, 2])
def test_with_everything_reused_a_rotation_alone_keeps_answers_fresh(data, tmp_path: Path, rotate: int) -> None:
    trained = made(data, tmp_path)
    model = model_of(trained)
    stale = windows(data, trained, replace(STALE, rotate=rotate)).validation(model, 4, 1.0, still=False)[0]
    full = windows(data, trained).validation(model, 4, 0.0, still=False)[0]
    far = max(float((one[0] - other[0]).detach().abs().max()) for one, other in zip(stale, full, strict=True))
    assert (far < 1e-5) == (rotate == 1)


def test_still_rows_are_those_whose_patch_changed_least() -> None:
    before = torch.zeros(1, 2, 3, 32, 32)
    now = before.clone()
    now[0, 1, :, 16:, :16] = 8.0
    np.testing.assert_allclose(patch_changes(before, now, 16)[0], [0, 0, 0, 0, 0, 0, 8, 0])


def test_windows_lie_within_episodes_and_held_out_ones_are_never_trained_on(data, tmp_path: Path) -> None:
    trained = made(data, tmp_path)
    drawn = windows(data, trained)
    for (held_out, stride), groups in drawn._starts.items():
        for start in np.concatenate(groups):
            assert start + stride * (STALE.window - 1) < data.end[start]
            assert data.held_out[start] == held_out
    with pytest.raises(UnfitDemonstrationsError, match="episode of 31 frames"):
        windows(data, trained, replace(STALE, window=4, strides=(10,)))


def test_a_policy_that_met_stale_rows_answers_better_with_them(data, tmp_path: Path) -> None:
    found = {}
    for name, stale in (("never", None), ("met", STALE)):
        recipe = replace(RECIPE, steps=120, batch=16, validate_every=120, ema=0.9, stale=stale)
        trained = made(data, tmp_path / name, recipe)
        trained.run()
        model = model_of(trained)
        with torch.no_grad():
            answers = [one[-1] for one in windows(data, trained).validation(model, 8, 0.75, still=True)]
        found[name] = torch.cat([(chunk - batch.chunk)[:, 0].abs().mean(dim=1) for chunk, batch in answers]).mean()
    assert found["met"] < 0.9 * found["never"]


def test_a_training_with_stale_rows_that_was_stopped_ends_as_one_that_was_not(data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", 4)
    whole = made(data, tmp_path / "whole")
    whole.run()
    stopped = made(data, tmp_path / "stopped")
    monkeypatch.setattr(Trainer, "validate", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    monkeypatch.undo()
    resumed = made(data, tmp_path / "stopped")
    assert resumed.state.step == 4
    resumed.run()
    assert resumed.checkpoint().sha256 == whole.checkpoint().sha256
    assert {"stale", "chunk"} <= set(read_log(tmp_path / "whole")[0])
    assert {"stale_none_mm", "stale_still_mm"} <= set(whole.validate())
