"""A checkpoint comes back as it was, and anything else is refused with a reason."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.types import ActionSpec
from vla_bench_policies.reference import checkpoint as checkpoints
from vla_bench_policies.reference.actions import Range
from vla_bench_policies.reference.checkpoint import Checkpoint, CheckpointError, CheckpointWriteError
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA
from vla_bench_policies.reference.policy import AutoregressivePolicy, ReferencePolicy, UnfitObservationError

SMALL = ModelConfig(image_px=32, patch_px=8, vision_width=32, vision_layers=1, width=32, layers=2, heads=4, hidden=80)
ACTIONS = Range((-0.5,) * 7, (0.5,) * 7)
STATES = Range((-1.0,) * 8, (1.0,) * 8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    Checkpoint(ReferenceVLA(SMALL), ACTIONS, STATES, {"steps": 7}).save(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def rewritten(path: Path, change) -> Path:
    with safe_open(path, "pt") as stream:
        tensors, metadata = {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata()  # noqa: SIM118
    header = json.loads(metadata["vla_bench"])
    change(tensors, header)
    save_file(tensors, path, {"vla_bench": json.dumps(header)})
    return path


def observation(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    pictures = {camera: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for camera in SMALL.cameras}
    return {**pictures, "proprio": rng.normal(size=8).astype(np.float32), "instruction": "open the drawer"}


def test_what_is_saved_comes_back_to_the_bit_from_the_second_time_on(path: Path) -> None:
    first = checkpoints.load(path)
    first.save(path.with_name("again.safetensors"))
    second = checkpoints.load(path.with_name("again.safetensors"))
    assert (second.actions, second.states, second.history) == (ACTIONS, STATES, {"steps": 7})
    assert second.sha256 == first.sha256
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name])


def test_another_weight_range_or_shape_is_another_hash(path: Path) -> None:
    one = checkpoints.load(path)
    names = {one.sha256, replace(one, actions=STATES).sha256}
    one.model.queries.data[0, 0] += 0.5
    assert len(names | {one.sha256}) == 3


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="truncated or another format"):
        checkpoints.load(path)


def test_a_flipped_bit_in_a_weight_is_found(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="one of them was altered"):
        checkpoints.load(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_header_is_found_or_changes_nothing(path: Path, place: float, bit: int) -> None:
    file = path.with_name("flipped.safetensors")
    flipped, known = bytearray(path.read_bytes()), checkpoints.load(path)
    n_header = 8 + int.from_bytes(flipped[:8], "little")
    flipped[int(place * n_header)] ^= 1 << bit
    file.write_bytes(flipped)
    try:
        found = checkpoints.load(file)
    except CheckpointError:
        return
    assert (found.sha256, found.history) == (known.sha256, known.history)


@pytest.mark.parametrize("name", ["config", "actions", "states", "tokens", "history", "sha256"])
def test_a_header_that_lacks_something_is_refused(path: Path, name: str) -> None:
    rewritten(path, lambda tensors, header: header.pop(name))
    with pytest.raises(CheckpointError, match=f"its header has no '{name}', so it was altered"):
        checkpoints.load(path)


def test_an_altered_history_is_found_and_a_checkpoint_from_before_its_hash_is_not_refused(path: Path) -> None:
    rewritten(path, lambda tensors, header: header["history"].update(steps=8))
    with pytest.raises(CheckpointError, match="its history does not have the hash of its header"):
        checkpoints.load(path)
    rewritten(path, lambda tensors, header: header.pop("history_sha256"))
    assert checkpoints.load(path).history == {"steps": 8}


def test_a_changed_range_is_found(path: Path) -> None:
    rewritten(path, lambda tensors, header: header["actions"].update(low=[-0.6] * 7))
    with pytest.raises(CheckpointError, match="one of them was altered"):
        checkpoints.load(path)


def test_a_pickle_is_never_opened(path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (path.with_name("opened"),))

    path.write_bytes(pickle.dumps({"model": Trap()}))
    with pytest.raises(CheckpointError, match="truncated or another format"):
        checkpoints.load(path)
    assert not path.with_name("opened").exists()


def test_a_foreign_safetensors_file_is_refused(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="another program wrote it"):
        checkpoints.load(path)
    save_file({"weight": torch.zeros(3)}, path, {"vla_bench": json.dumps({"kind": "gates"})})
    with pytest.raises(CheckpointError, match="it is a 'gates', not a"):
        checkpoints.load(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        checkpoints.load(tmp_path / "none.safetensors")


def test_weights_of_another_shape_are_refused(path: Path) -> None:
    def change(tensors, header):
        header["config"]["layers"] = 3
        shape = {key: header[key] for key in ("config", "actions", "states", "tokens")}
        header["sha256"] = checkpoints._digest(tensors, shape)

    rewritten(path, change)
    with pytest.raises(CheckpointError, match="do not fit its shape"):
        checkpoints.load(path)


def test_a_full_disk_leaves_the_old_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(CheckpointWriteError, match="No space left on device"):
        Checkpoint(ReferenceVLA(SMALL), ACTIONS, STATES).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_is_a_file_is_an_error_with_a_reason(path: Path) -> None:
    with pytest.raises(CheckpointWriteError, match="cannot write"):
        Checkpoint(ReferenceVLA(SMALL), ACTIONS, STATES).save(path / "below" / "x.safetensors")


@pytest.mark.parametrize(("make", "n_actions", "stages"), [
    (ReferencePolicy, 8, ["preprocess", "vision", "prefill", "gate", "postprocess"]),
    (AutoregressivePolicy, 1, ["preprocess", "vision", "prefill", "gate", "decode", "postprocess"]),
])  # fmt: skip
def test_a_policy_answers_in_units_of_the_environment(path: Path, make, n_actions: int, stages: list[str]) -> None:
    policy = make(str(path))
    chunk = policy.act(observation())
    assert chunk.actions.shape == (n_actions, 7)
    assert set(chunk.actions[:, 6]) <= {-1.0, 1.0}
    assert np.abs(chunk.actions).max() <= 1
    assert list(chunk.stages_ms) == stages
    assert chunk.rows_computed == 1 + 2 * 16 + 3 + 1 + (8 if n_actions == 8 else 6)
    assert np.array_equal(policy.act(observation()).actions, chunk.actions)
    assert not np.array_equal(policy.act(observation(1)).actions, chunk.actions)


def test_a_policy_says_what_decides_its_answers(path: Path) -> None:
    policies = [ReferencePolicy(str(path)), ReferencePolicy(str(path), execute=4), AutoregressivePolicy(str(path))]
    assert len({policy.fingerprint for policy in policies}) == 3
    assert ReferencePolicy(str(path)).fingerprint == policies[0].fingerprint
    assert policies[0].name == "reference-oft:small"
    assert policies[0].action_spec == ActionSpec()
    assert len(policies[1].act(observation()).actions) == 4


METRES = ActionSpec(translation_m=1.0, rotation_rad=1.0, gripper="open_is_positive")
ONE_VIEW = replace(SMALL, cameras=("above",), proprio_size=9, proprio_entries=(0, 1, 8))


def test_a_policy_has_the_views_the_proprioception_and_the_actions_of_its_checkpoint(tmp_path: Path) -> None:
    states = Range((-1.0,) * 9, (1.0,) * 9)
    Checkpoint(ReferenceVLA(ONE_VIEW), ACTIONS, states, {}, METRES).save(tmp_path / "x.safetensors")
    policy = ReferencePolicy(str(tmp_path / "x.safetensors"))
    assert (policy.cameras, policy.action_spec) == (("above",), METRES)
    seen = {"above": np.zeros((32, 32, 3), np.uint8), "instruction": "open the drawer"}
    assert policy.act(seen | {"proprio": np.zeros(9, np.float32)}).actions.shape == (8, 7)
    with pytest.raises(UnfitObservationError) as caught:
        policy.act(seen | {"proprio": np.zeros(8, np.float32)})
    assert str(caught.value) == (
        "the observation has a proprioception (8,); the reference VLA was trained on (9,): run it with --protocol "
        "reference or --protocol reference-fast, or choose weights that were trained on this robot"
    )


def test_a_header_from_before_other_robots_means_actions_of_libero_and_keeps_its_hash(path: Path) -> None:
    one = checkpoints.load(path)
    with safe_open(path, "pt") as stream:
        assert "action_spec" not in json.loads(stream.metadata()["vla_bench"])
    assert one.action_spec == ActionSpec()
    assert replace(one, action_spec=METRES).sha256 != one.sha256


def test_an_image_of_another_size_or_a_missing_camera_is_refused(path: Path) -> None:
    policy = ReferencePolicy(str(path))
    large = observation() | {"agentview": np.zeros((64, 64, 3), np.uint8)}
    with pytest.raises(UnfitObservationError, match=r"images \(64, 64, 3\) of 'agentview'.*--protocol reference"):
        policy.act(large)
    blind = {key: value for key, value in observation().items() if key != "agentview"}
    with pytest.raises(UnfitObservationError, match="no camera 'agentview'"):
        policy.act(blind)


@pytest.mark.parametrize(("options", "error"), [
    ({"execute": 9}, OptionError), ({"execute": 0}, OptionError), ({"device": "tpu"}, OptionError),
])  # fmt: skip
def test_options_out_of_range_are_refused(path: Path, options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        ReferencePolicy(str(path), **options)


def test_an_unknown_checkpoint_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="no checkpoint of the reference VLA named 'huge'"):
        ReferencePolicy("huge")
