"""A training is a function of its recipe and its demonstrations, however often it is cut off."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from recordings import CAMERAS, write_dataset

from vla_bench import cli
from vla_bench.errors import OptionError, RunLockedError
from vla_bench.lock import only_writer
from vla_bench.types import ActionSpec
from vla_bench_policies.reference import checkpoint as checkpoints
from vla_bench_policies.reference.actions import Range
from vla_bench_policies.reference.checkpoint import CheckpointError, CheckpointWriteError
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA
from vla_bench_policies.reference.training import frames, trainer
from vla_bench_policies.reference.training.batches import Batches, altered
from vla_bench_policies.reference.training.command import TrainReference
from vla_bench_policies.reference.training.curve import training_curve
from vla_bench_policies.reference.training.frames import FrameCacheError, UnfitDemonstrationsError
from vla_bench_policies.reference.training.growth import UngrowableError, grown, transferred
from vla_bench_policies.reference.training.recipe import PRESETS, Recipe, Staleness
from vla_bench_policies.reference.training.sight import learn_to_see
from vla_bench_policies.reference.training.state import OtherTrainingError
from vla_bench_policies.reference.training.trainer import LOG, STATE, Trainer, cosine_rate, read_log

SMALL = ModelConfig(image_px=32, patch_px=16, vision_width=16, vision_layers=1, width=16, layers=1, heads=2, hidden=32)
RECIPE = Recipe(model=SMALL, steps=12, batch=4, warmup_steps=2, validate_every=6, learning_rate=3e-3, shift_px=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("demonstrations") / "small")


@pytest.fixture(scope="module")
def data(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> frames.Demonstrations:
    return frames.load([dataset], CAMERAS, 32, tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(data: frames.Demonstrations, directory: Path, recipe: Recipe = RECIPE) -> Trainer:
    return Trainer(recipe, data, directory, CPU, ActionSpec())


def test_a_training_that_was_stopped_ends_as_one_that_was_not(data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", 4)
    whole = made(data, tmp_path / "whole")
    whole.run()

    stopped = made(data, tmp_path / "stopped")
    monkeypatch.setattr(Trainer, "validate", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()  # at step 6, of which the state of step 4 is on the disk
    monkeypatch.undo()
    monkeypatch.setattr(trainer, "SAVE_EVERY", 4)
    resumed = made(data, tmp_path / "stopped")
    assert resumed.state.step == 4
    resumed.run()

    assert resumed.state.step == whole.state.step == 12
    for name, weight in whole.state.averaged.items():
        assert torch.equal(weight, resumed.state.averaged[name]), name
    assert resumed.checkpoint().sha256 == whole.checkpoint().sha256
    losses = [[(row["step"], row.get("chunk")) for row in read_log(tmp_path / name)] for name in ("whole", "stopped")]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == [4, 6, 8, 12, 12]


def test_another_seed_is_another_training(data, tmp_path: Path) -> None:
    one, other = (made(data, tmp_path / str(seed), replace(RECIPE, seed=seed)) for seed in (0, 1))
    one.run()
    other.run()
    assert one.checkpoint().sha256 != other.checkpoint().sha256


def test_training_learns_what_is_held_out(data, tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=150, batch=16, validate_every=150, ema=0.9)
    trained = made(data, tmp_path, recipe)
    before = trained.validate()
    trained.run()
    after = trained.validate()
    assert after["chunk_l1"] < 0.7 * before["chunk_l1"]
    assert after["gripper"] == 1.0  # what the sentence says


def test_another_recipe_or_other_demonstrations_are_refused(data, tmp_path: Path) -> None:
    made(data, tmp_path).run()
    with pytest.raises(OtherTrainingError, match="was begun with recipe"):
        made(data, tmp_path, replace(RECIPE, clip=2.0))
    with pytest.raises(OtherTrainingError, match="was begun with demonstrations"):
        made(replace(data, fingerprint="others"), tmp_path)


def test_vision_learns_to_tell_places_before_anything_else_learns(data, tmp_path: Path) -> None:
    seen = np.hstack([data.actions[:, :2], np.zeros((len(data.actions), 6))]).astype(np.float32)  # the bright square
    shown = replace(data, states=seen, end=np.arange(1, len(seen) + 1))  # each frame an episode: all is in the picture
    recipe = replace(RECIPE, sight_steps=200, sight_rate=3e-3)
    blind, seeing = made(shown, tmp_path / "a"), made(shown, tmp_path / "b", recipe)
    before, after = blind.state.model.state_dict(), seeing.state.model.state_dict()
    changed = {name.partition(".")[0] for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {"vision", "projector"}
    errors = learn_to_see(blind.state.model, blind._batches, recipe)
    assert np.mean(errors[-20:]) < 0.3 * np.mean(errors[:20])


def test_frames_far_from_their_next_grasp_are_drawn_more_often(data) -> None:
    near = np.zeros_like(data.states)
    near[::2, 0] = 1.0  # in every episode some frames are where it ends, and some a metre away
    known = replace(data, states=near)
    left = np.abs(near[known.grasp, 0] - near[:, 0])
    even, far = (
        Batches(known, replace(RECIPE, far=share), Range((0,) * 7, (1,) * 7), Range((0,) * 8, (1,) * 8), CPU)._shares
        for share in (0.0, 0.5)
    )
    assert even is None
    assert far is not None
    assert far.sum() == pytest.approx(1.0)
    is_far = left[data.training] > 0
    assert far[is_far].sum() == pytest.approx(0.5 + 0.5 * is_far.mean())


def test_a_training_that_goes_on_does_not_learn_to_see_again(data, tmp_path: Path, monkeypatch) -> None:
    recipe = replace(RECIPE, sight_steps=3)
    made(data, tmp_path, recipe).run()
    monkeypatch.setattr(trainer, "learn_to_see", lambda *_: pytest.fail("it has seen"))
    assert made(data, tmp_path, recipe).state.step == 12


def test_recipes_have_the_hash_that_the_cards_of_what_they_made_say() -> None:
    assert (PRESETS["cpu"].hash, PRESETS["cpu-deep"].hash) == ("437d1eb66cdb", "41fe879f4bc3")
    assert replace(RECIPE, sight_steps=1).hash != RECIPE.hash != replace(RECIPE, stale=Staleness()).hash
    assert replace(RECIPE, bfloat16=True).hash != RECIPE.hash


def test_a_training_in_bfloat16_comes_near_to_the_one_in_float32_and_leaves_its_weights_there(data, tmp_path) -> None:
    exact, short = made(data, tmp_path / "a"), made(data, tmp_path / "b", replace(RECIPE, bfloat16=True))
    exact.run()
    short.run()
    assert {weight.dtype for weight in short.state.averaged.values()} == {torch.float32}
    assert short.checkpoint().sha256 != exact.checkpoint().sha256
    assert short.validate()["chunk_l1"] == pytest.approx(exact.validate()["chunk_l1"], rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_broken_state_is_refused(data, tmp_path: Path, share: float) -> None:
    made(data, tmp_path).run()
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[: int(share * state.stat().st_size)])
    with pytest.raises(CheckpointError, match="truncated"):
        made(data, tmp_path)


def test_a_full_disk_ends_the_training_and_keeps_the_last_state(data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", 4)
    begun = made(data, tmp_path)
    saved = checkpoints.save_file

    def full_from_step_8(*args, **options):
        if begun.state.step >= 8:
            raise OSError(28, "No space left on device")
        saved(*args, **options)

    monkeypatch.setattr(checkpoints, "save_file", full_from_step_8)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        begun.run()
    assert made(data, tmp_path).state.step == 4


def test_episodes_are_split_whole_and_every_tenth_of_a_sentence_is_held_out(data) -> None:
    starts = np.unique(data.end)
    assert len(starts) == 20
    for end in starts:
        assert len(np.unique(data.held_out[data.end == end])) == 1
    assert len(np.unique(data.end[data.held_out])) == 2
    assert not set(data.training) & set(data.validation)


def test_a_chunk_never_reaches_into_the_next_episode(data) -> None:
    last = data.end[0] - 1
    actions, within = data.chunks(np.array([last - 1, 0]), 8)
    assert within[0].tolist() == [True, True, *[False] * 6]
    assert np.array_equal(actions[0, 1], actions[0, 7])
    assert np.array_equal(actions[1, : data.end[0]], data.actions[: data.end[0]][:8])


def test_frames_are_decoded_once(dataset: Path, tmp_path: Path, monkeypatch) -> None:
    first = frames.load([dataset], CAMERAS, 32, tmp_path)
    monkeypatch.setattr(frames, "_decode", None)
    again = frames.load([dataset], CAMERAS, 32, tmp_path)
    index = np.array([0, 7, 30])
    assert np.array_equal(first.pictures(index), again.pictures(index))
    assert first.fingerprint == again.fingerprint


def test_two_datasets_are_one_after_the_other(dataset: Path, data, tmp_path: Path) -> None:
    both = frames.load([dataset, write_dataset(tmp_path / "more")], CAMERAS, 32, tmp_path / "cache")
    n = len(data.end)
    assert np.array_equal(both.pictures(np.array([n - 1, n])), both.pictures(np.array([n - 1, 0])))
    assert both.fingerprint != data.fingerprint
    assert both.end[n] == n + both.end[0]


def test_unfit_demonstrations_are_refused(tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "few", n_episodes=4)
    with pytest.raises(UnfitDemonstrationsError, match="fewer than 10 episodes of every task"):
        frames.load([few], CAMERAS, 32, tmp_path)
    with pytest.raises(UnfitDemonstrationsError, match=r"images \(32, 32, 3\)"):
        frames.load([few], CAMERAS, 128, tmp_path)
    blind = write_dataset(tmp_path / "blind", cameras=CAMERAS[:1])
    with pytest.raises(UnfitDemonstrationsError, match=r"has cameras \['agentview'\]"):
        frames.load([blind], CAMERAS, 32, tmp_path)


def test_a_cache_without_room_says_how_much_it_needs(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FrameCacheError, match="GB of decoded frames"):
        frames.load([dataset], CAMERAS, 32, tmp_path / "file" / "cache")


def test_an_altered_image_is_the_image_shifted() -> None:
    images = torch.rand(6, 2, 3, 32, 32) * 255
    rng = np.random.default_rng(0)
    shifted = altered(images, shift_px=3, colour=0.0, rng=rng)
    offsets = set()
    for one, other in zip(images.flatten(0, 1), shifted.flatten(0, 1), strict=True):
        found = [
            (dy, dx)
            for dy in range(-3, 4)
            for dx in range(-3, 4)
            if torch.allclose(other[:, 3:-3, 3:-3], one[:, 3 + dy : 29 + dy, 3 + dx : 29 + dx], atol=1e-3)
        ]
        assert len(found) == 1
        offsets.update(found)
    assert len(offsets) > 4


def test_altered_light_keeps_what_is_brighter_brighter() -> None:
    images = torch.linspace(60, 160, 32).expand(4, 2, 3, 32, 32).clone()
    seen = altered(images, shift_px=0, colour=0.2, rng=np.random.default_rng(0))
    assert (seen.diff(dim=-1) > 0).all()
    assert (seen - images).abs().mean() > 2


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    peak, warmup, steps = RECIPE.learning_rate, RECIPE.warmup_steps, RECIPE.steps
    rates = [cosine_rate(peak, warmup, steps, step) for step in range(steps + 1)]
    assert max(rates) == RECIPE.learning_rate == rates[RECIPE.warmup_steps]
    assert rates[: RECIPE.warmup_steps] == sorted(rates[: RECIPE.warmup_steps])
    assert rates[RECIPE.warmup_steps :] == sorted(rates[RECIPE.warmup_steps :], reverse=True)
    assert rates[-1] == pytest.approx(0)


def command(dataset: Path, out: Path, cache: Path) -> list[str]:
    return ["train", "reference", "--data", str(dataset), "--out", str(out), "--cache", str(cache), "--threads", "1"]


@pytest.fixture
def small_preset(monkeypatch) -> None:
    monkeypatch.setitem(PRESETS, "cpu", RECIPE)


def test_the_command_leaves_a_checkpoint_a_log_and_a_curve(
    dataset: Path, tmp_path: Path, small_preset, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main([*command(dataset, tmp_path / "run", tmp_path / "cache"), "--steps", "6"]) == 0
    said = capsys.readouterr().out
    assert "126 frames to train on, 13 held out, 2 sentences; step 0 of 6" in said
    found = checkpoints.load(tmp_path / "run" / "checkpoint.safetensors")
    assert found.history["steps"] == 6
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["steps"] == 6
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000
    assert cli.main(["train", "curve", str(tmp_path / "run"), "--out", str(tmp_path / "again.pdf")]) == 0
    assert (tmp_path / "again.pdf").exists()


def test_a_second_trainer_of_one_directory_is_refused(dataset: Path, tmp_path: Path, small_preset) -> None:
    (tmp_path / "run").mkdir()
    with only_writer(tmp_path / "run" / "train.lock"), pytest.raises(RunLockedError):
        TrainReference(data=(dataset,), out=tmp_path / "run", cache=tmp_path / "cache").run()


@pytest.mark.parametrize("options", [{"steps": -1}, {"seed": -1}, {"device": "tpu"}])
def test_bad_options_are_refused(dataset: Path, options: dict) -> None:
    with pytest.raises(OptionError):
        TrainReference(data=(dataset,), **options).run()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_not_replaced_by_the_cpu(dataset: Path) -> None:
    with pytest.raises(OptionError, match="torch finds no GPU"):
        TrainReference(data=(dataset,), preset="gpu").run()


def test_the_curve_shows_training_and_held_out_loss() -> None:
    rows = [{"step": 100, "chunk": 0.4}, {"step": 200, "chunk": 0.2}]
    rows += [{"step": 200, "chunk_l1": 0.3, "translation_mm": 2.5, "gripper": 0.98}]
    figure, ax = plt.subplots()
    training_curve(ax, rows)
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert drawn == {"training, augmented": [0.4, 0.2], "held-out episodes": [0.3]}
    plt.close(figure)


KILLED = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_reference_training as here
torch.set_num_threads(1)
here.trainer.SAVE_EVERY = 2
data = here.frames.load([Path({dataset!r})], here.CAMERAS, 32, Path({cache!r}))
here.made(data, Path({out!r}), here.replace(here.RECIPE, steps=400)).run()
"""


def test_a_training_that_is_killed_goes_on_exactly(dataset: Path, data, tmp_path: Path) -> None:
    names = {"tests": str(Path(__file__).parent), "dataset": str(dataset), "cache": str(tmp_path / "cache")}
    script = KILLED.format(**names, out=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = made(data, tmp_path / "killed", replace(RECIPE, steps=400))
    assert 0 < resumed.state.step < 400
    step = resumed.state.step + 3
    whole = made(data, tmp_path / "whole", replace(RECIPE, steps=400))
    for training in (resumed, whole):
        while training.state.step < step:
            training._advance()
    for name, weight in whole.state.averaged.items():
        assert torch.equal(weight, resumed.state.averaged[name]), name


def test_a_log_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"step": 1}\n{"step": 2, "chu')
    assert read_log(tmp_path) == [{"step": 1}]


def test_a_grown_model_computes_what_the_small_one_does_and_every_new_weight_can_learn() -> None:
    torch.manual_seed(0)
    small, config = ReferenceVLA(replace(SMALL, layers=2)), replace(SMALL, layers=6)
    large = ReferenceVLA(config)
    large.load_state_dict(grown(small, config))
    asked = (
        torch.rand(2, 2, 3, 32, 32) * 255, torch.tensor([[5, 6], [7, 8]]), torch.randn(2, 8),
        torch.zeros(2, 7, dtype=torch.long),
    )  # fmt: skip
    assert torch.equal(large(*asked).chunk, small(*asked).chunk)
    assert torch.equal(large(*asked).logits, small(*asked).logits)

    optimiser = torch.optim.SGD(large.parameters(), lr=0.1)
    for _ in range(2):  # the first step moves the projections out of the copies, the second all of them
        optimiser.zero_grad()
        answer = large(*asked)
        (answer.chunk.square().mean() + answer.logits.logsumexp(-1).mean()).backward()
        optimiser.step()
    assert all(weight.grad.abs().max() > 0 for name, weight in large.named_parameters() if "decoder.layers" in name)


@pytest.mark.parametrize("cameras", [("above",), ("above", "hand", "behind")])
def test_a_model_for_another_robot_keeps_all_that_does_not_depend_on_the_robot(cameras: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    small = ReferenceVLA(replace(SMALL, layers=2))
    config = replace(SMALL, layers=4, cameras=cameras, proprio_size=9, proprio_entries=tuple(range(9)))
    weights = transferred(small, config)
    ReferenceVLA(config).load_state_dict(weights)
    before = grown(small, replace(SMALL, layers=4))
    changed = {name for name, weight in weights.items() if not torch.equal(weight, before.get(name, weight[:0]))}
    assert changed == {"vision.camera"} | {f"proprio.{part}" for part in ("0.weight", "0.bias", "2.weight", "2.bias")}
    known = min(len(cameras), 2)
    assert torch.equal(weights["vision.camera"][:known], before["vision.camera"][:known])
    assert weights["vision.camera"].shape[0] == len(cameras)
    with pytest.raises(UngrowableError, match="width 16; expected width 32"):
        transferred(small, replace(config, width=32))


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (replace(SMALL, width=32), "width 16; expected width 32"),
        (replace(SMALL, layers=3), "2 layers; expected a divisor of 3"),
    ],
)
def test_weights_of_another_shape_are_no_beginning(config: ModelConfig, found: str) -> None:
    with pytest.raises(UngrowableError, match=found):
        grown(ReferenceVLA(replace(SMALL, layers=2)), config)


def test_a_training_begins_with_a_checkpoint_and_goes_on_only_with_the_same(data, tmp_path: Path) -> None:
    first = made(data, tmp_path / "first")
    first.run()
    checkpoint = first.checkpoint()
    deep = replace(RECIPE, model=replace(SMALL, layers=2))
    begun = Trainer(deep, data, tmp_path / "deep", CPU, ActionSpec(), checkpoint)
    assert begun.validate() == pytest.approx(first.validate(), rel=1e-5)
    begun.run()
    assert begun.checkpoint().history["before"]["steps"] == 12
    with pytest.raises(OtherTrainingError, match="begin"):
        Trainer(deep, data, tmp_path / "deep", CPU, ActionSpec(), begun.checkpoint())
