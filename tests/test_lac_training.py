"""Gates are trained for a policy that stays as it is, and a training goes on exactly where it was cut off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import SMALL, TASK, PictureEnv, save_checkpoint
from recordings import CAMERAS, write_dataset

from vla_bench import registry
from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.testing import check_method
from vla_bench_policies.lac.flow import difference
from vla_bench_policies.lac.gates import KIND, GateConfig, Gates
from vla_bench_policies.lac.training import command
from vla_bench_policies.lac.training.command import TrainLac
from vla_bench_policies.lac.training.losses import Losses
from vla_bench_policies.lac.training.recipe import GateRecipe
from vla_bench_policies.learned import checkpoint as networks_on_disk
from vla_bench_policies.learned import trainer
from vla_bench_policies.learned.checkpoint import ForeignNetworksError, NetworksError, Trained
from vla_bench_policies.learned.command import NETWORKS
from vla_bench_policies.learned.trainer import NetworkTrainer
from vla_bench_policies.learned.windows import Windows
from vla_bench_policies.methods.lac import Lac
from vla_bench_policies.methods.rotate import turns
from vla_bench_policies.reference import checkpoint as policies_on_disk
from vla_bench_policies.reference.checkpoint import Checkpoint
from vla_bench_policies.reference.policy import ReferencePolicy
from vla_bench_policies.reference.teaching import ReferenceReader, ReferenceTeacher
from vla_bench_policies.reference.training import frames
from vla_bench_policies.reference.training.state import OtherTrainingError
from vla_bench_policies.reference.training.trainer import read_log

CONFIG = GateConfig(flow="difference", px=32, widths=(8, 16, 16), hidden=16, grid=8)
RECIPE = GateRecipe(gates=CONFIG, steps=8, batch=4, window=3, stride=2, warmup_steps=2, validate_every=4)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("recorded") / "squares")


@pytest.fixture(scope="module")
def data(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> frames.Demonstrations:
    return frames.load([dataset], CAMERAS, 32, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors")


def made(data, weights: Path | Checkpoint, directory: Path, recipe: GateRecipe = RECIPE) -> NetworkTrainer:
    policy = policies_on_disk.load(weights) if isinstance(weights, Path) else weights
    windows = Windows(data, ReferenceReader(policy), recipe, difference)
    torch.manual_seed(0)
    gates = Gates(recipe.gates)
    losses = Losses(recipe, gates, ReferenceTeacher(policy.model, recipe.first_layer))
    return NetworkTrainer(recipe, gates, losses, windows, directory, {"policy": "p"})


def hash_of(training: NetworkTrainer) -> str:
    return Trained(KIND, training.averaged(), "p").sha256


def test_stage_one_lowers_the_alignment_error_on_held_out_episodes(data, weights: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, stage=1, steps=60, learning_rate=5e-3, validate_every=60)
    training = made(data, weights, tmp_path, recipe)
    before = training.validate()["held_out_alignment"]
    training.run()
    assert training.validate()["held_out_alignment"] < 0.8 * before


def test_what_is_saved_grows_with_what_saving_is_worth(data, weights: Path, tmp_path: Path) -> None:
    ratios = []
    for saving in (0.0, 1.0):
        recipe = replace(RECIPE, steps=60, learning_rate=5e-3, saving=saving, validate_every=60)
        training = made(data, weights, tmp_path / str(saving), recipe)
        training.run()
        ratios.append(training.validate()["held_out_ratio"])
    assert ratios[0] < 0.5
    assert ratios[1] == pytest.approx(102 / 128)  # of 128 rows, 0.8 is 102


def test_rows_whose_turn_it_is_are_recomputed_whatever_the_gates_say(data, weights: Path, tmp_path: Path) -> None:
    found = {}
    for every in (0, 1, 4):
        training = made(data, weights, tmp_path / str(every), replace(RECIPE, rotate=every))
        batch = training._windows.validation(4)[0]
        found[every] = training._objective.inference(batch, ratio=0.75)
    assert found[0]["ratio"] == pytest.approx(0.75)
    assert found[1]["ratio"] == 0
    assert found[1]["distance"] < 1e-5 < found[4]["distance"]
    assert 0.75 * 0.75 - 0.1 < found[4]["ratio"] < 0.75


def test_turns_are_those_of_the_method() -> None:
    due = np.stack([turns(4, index, 8, 128) for index in range(2, 6)])
    assert (due.sum(axis=0) == 1).all()
    assert (due.sum(axis=1) == 32).all()
    np.testing.assert_array_equal(due[:, :64], due[:, 64:])


def test_a_training_that_was_stopped_ends_as_one_that_was_not(data, weights, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", 3)
    whole = made(data, weights, tmp_path / "whole")
    whole.run()
    stopped = made(data, weights, tmp_path / "stopped")
    monkeypatch.setattr(NetworkTrainer, "validate", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()  # at step 4, of which the state of step 3 is on the disk
    monkeypatch.undo()
    monkeypatch.setattr(trainer, "SAVE_EVERY", 3)
    resumed = made(data, weights, tmp_path / "stopped")
    assert resumed.state.step == 3
    resumed.run()
    assert hash_of(resumed) == hash_of(whole)
    logs = [[(row["step"], row.get("task")) for row in read_log(tmp_path / name)] for name in ("whole", "stopped")]
    assert logs[0] == logs[1]
    with pytest.raises(OtherTrainingError, match="was begun with recipe"):
        made(data, weights, tmp_path / "stopped", replace(RECIPE, saving=0.5))


@pytest.mark.parametrize("change", [{}, {"stage": 1}, {"task_loss": "distill"}, {"self_made": 0.0, "first_layer": 2}])
def test_frozen_means_frozen(data, weights: Path, tmp_path: Path, change: dict) -> None:
    policy = policies_on_disk.load(weights)
    before = policy.sha256
    training = made(data, policy, tmp_path, replace(RECIPE, steps=3, **change))
    first = hash_of(training)
    training.run()
    assert policy.sha256 == before == policies_on_disk.load(weights).sha256
    assert hash_of(training) != first


def test_windows_lie_within_episodes_and_held_out_ones_are_never_trained_on(data, weights: Path) -> None:
    windows = Windows(data, ReferenceReader(policies_on_disk.load(weights)), RECIPE, difference)
    for held_out, groups in windows._starts.items():
        for start in np.concatenate(groups):
            last = start + RECIPE.stride * (RECIPE.window - 1)
            assert data.end[start] == data.end[last]
            assert data.held_out[start] == data.held_out[last] == held_out
    batch = windows.training(0)
    assert batch.images.shape == (4, 3, 2, 32, 32, 3)
    assert batch.flow.shape == (4, 2, 2, 32, 32, 2)
    assert batch.chunk.shape == (4, 3, SMALL.chunk, 7)
    again = windows.training(0)
    assert torch.equal(batch.images, again.images)
    assert not torch.equal(batch.images, windows.training(1).images)


def test_from_the_command_to_a_method_that_keeps_its_contract(dataset, weights, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(command, "GateRecipe", lambda **values: replace(RECIPE, **values))
    first = TrainLac(
        (dataset,), stage=1, policy=str(weights), out=tmp_path / "one", flow="difference", steps=4, stride=2, threads=1,
        cache=tmp_path,
    )  # fmt: skip
    assert first.run() == 0
    second = replace(first, stage=2, begin=tmp_path / "one" / NETWORKS, out=tmp_path / "two", language=True)
    with pytest.raises(OptionError, match="is not told the instruction"):
        second.run()
    assert replace(second, language=False).run() == 0
    path = tmp_path / "two" / NETWORKS
    trained = networks_on_disk.load(path, KIND)
    assert replace(second, language=False, half=True, out=tmp_path / "half").run() == 0
    half = networks_on_disk.load(tmp_path / "half" / NETWORKS, KIND)
    assert (tmp_path / "half" / NETWORKS).stat().st_size < 0.7 * path.stat().st_size
    for name, weight in half.network.state_dict().items():
        assert torch.equal(weight, trained.network.state_dict()[name].half().float())
    assert trained.history["recipe"]["stage"] == 2
    assert trained.history["begin"] == networks_on_disk.load(tmp_path / "one" / NETWORKS, KIND).sha256[:12]
    assert path.stat().st_size < 2_000_000

    spec = f"lac:{path},recover=0.5"
    exact = registry.method(f"lac:{path},ratio=0.0")
    check_method(registry.method(spec), lambda: ReferencePolicy(str(weights)), PictureEnv(), TASK, exact)
    policy = registry.method(f"lac:{path},ratio=0.6,recover=0").apply(ReferencePolicy(str(weights)))
    env = PictureEnv()
    obs, _ = env.reset()
    policy.reset(TASK, 0)
    shares = []
    for _ in range(3):
        chunk = policy.act(obs)
        shares.append(round(chunk.cache["effective"], 3))
        obs, *_ = env.step(chunk.actions[0])
    assert shares == [0.0, 0.594, 0.594]
    assert chunk.stages_ms["gate"] > 0


def test_gates_of_another_policy_are_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    Trained(KIND, Gates(CONFIG), "f" * 64).save(path)
    with pytest.raises(ForeignNetworksError, match=r"were trained for the weights f{12}, the policy has \w{12}"):
        registry.method(f"lac:{path}").apply(ReferencePolicy(str(weights)))


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "policy"])
def test_a_file_without_gates_is_refused(damage: str, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    Trained(KIND, Gates(CONFIG), "f" * 64).save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "foreign":
        path.write_text(json.dumps({"gates": 1}))
    else:
        path = weights
    with pytest.raises(NetworksError, match="holds no networks of LAC"):
        networks_on_disk.load(path, KIND)


def test_operating_points_and_options_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="no operating point of LAC named 'fastest'"):
        networks_on_disk.find("fastest", KIND)
    for change in ({"recover": 2.0}, {"ratio": -0.5}, {"max_age": -1}, {"first_layer": 1.5}):
        with pytest.raises(OptionError, match="lac: "):
            Lac(**change)
    with pytest.raises(OptionError, match="--data is 'missing'"):
        TrainLac(()).run()
