"""Any policy with LeRobot's documented interface is asked as LeRobot asks it.

The package itself was not available: lerobot 0.4.4 pins torch below 2.11, transformers below 5, huggingface-hub below
0.36 and a dozen others against this project's versions, and an environment of its own takes over 2 GB. Here a small
class keeps its documented interface (`policies/pretrained.py`: `config`, `reset`, `predict_action_chunk`,
`select_action`), and the two processors are functions; `test_lerobot_package.py` runs the real classes wherever they
can be imported.
"""

import json
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pictures import TASK, PictureEnv
from safetensors.torch import save_file

from vla_bench import registry
from vla_bench.errors import OptionError
from vla_bench.testing import check_method, check_policy
from vla_bench.testing.promises import same
from vla_bench_policies.lerobot.adapter import Keys, LeRobotPolicy, UnfitFeaturesError
from vla_bench_policies.lerobot.loading import LeRobotCheckpointError, MissingLeRobotError, load

IMAGE, WRIST, STATE = "observation.images.image", "observation.images.image2", "observation.state"
MEAN, STD = 0.1, 2.0
"""Of the stand-in's normalisation, which lives in the processors, as in LeRobot since 0.4."""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@dataclass
class Config:
    """The fields of `PreTrainedConfig` that are read."""

    input_features: dict[str, Any] = field(default_factory=lambda: dict.fromkeys((IMAGE, WRIST, STATE)))
    output_features: dict[str, Any] = field(default_factory=lambda: {"action": SimpleNamespace(shape=(7,))})
    type: str = "fake"
    device: str = "cpu"
    n_obs_steps: int = 1
    n_action_steps: int = 3
    chunk_size: int = 6
    temporal_ensemble_coeff: float | None = None


class FakePolicy(torch.nn.Module):
    """Answers from what it sees and from noise of the global generator, as flow-matching policies do."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.head = torch.nn.Linear(4, config.chunk_size * 7, bias=False)
        torch.nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(1))
        self.batches: list[dict[str, Any]] = []
        self.reset()

    def reset(self) -> None:
        self._actions: deque = deque()
        self._past: deque = deque(maxlen=self.config.n_obs_steps)

    def predict_action_chunk(self, batch: dict[str, Any]) -> torch.Tensor:
        self.batches.append(batch)
        images = [batch[key].mean((1, 2, 3)) for key in self.config.input_features if key != STATE]
        seen = torch.stack([sum(images), batch[STATE].sum(-1), batch["tokens"].float(), self._looked_back()], -1)
        noise = torch.randn(1, self.config.chunk_size, 7)
        return self.head(seen).reshape(1, -1, 7) + 0.1 * noise

    def select_action(self, batch: dict[str, Any]) -> torch.Tensor:
        self._past.append(batch[STATE].sum(-1))
        if not self._actions:
            self._actions.extend(self.predict_action_chunk(batch)[:, : self.config.n_action_steps].transpose(0, 1))
        return self._actions.popleft()

    def _looked_back(self) -> torch.Tensor:
        return sum(list(self._past)[:-1], torch.zeros(1))


def before(batch: dict[str, Any]) -> dict[str, Any]:
    return batch | {STATE: (batch[STATE] - MEAN) / STD, "tokens": torch.tensor([len(batch["task"][0])])}


def after(action: torch.Tensor) -> torch.Tensor:
    assert action.shape == (1, 7)  # LeRobot's postprocessor takes one action of a batch at a time
    return action * STD + MEAN


def wrapped(config: Config | None = None, execute: int = 0, keys: Keys | None = None) -> LeRobotPolicy:
    inner = FakePolicy(config or Config())
    return LeRobotPolicy(inner, before, after, keys or Keys(), execute, "abc")


@pytest.mark.parametrize("config", [Config(), Config(n_obs_steps=2), Config(temporal_ensemble_coeff=0.01)])
def test_a_lerobot_policy_keeps_the_contract_of_a_policy(config: Config) -> None:
    check_policy(wrapped(config), PictureEnv(), TASK)


def test_methods_keep_theirs_around_it() -> None:
    exact = registry.method("action-reuse:1")
    check_method(registry.method("action-reuse:2"), wrapped, PictureEnv(), TASK, exact)


def test_pictures_state_and_sentence_arrive_as_lerobot_evaluates() -> None:
    policy = wrapped()
    obs, _ = PictureEnv().reset()
    policy.reset(TASK, 0)
    policy.act(obs)
    (batch,) = policy._inner.batches
    assert batch[IMAGE].shape == (1, 3, 32, 32)
    assert batch[IMAGE].dtype == torch.float32
    assert torch.equal(batch[IMAGE][0, :, 3, 5] * 255, torch.tensor(obs["agentview"][3, 5]).float())
    assert torch.equal(batch[WRIST][0] * 255, torch.tensor(obs["robot0_eye_in_hand"]).permute(2, 0, 1).float())
    assert torch.equal(batch[STATE] * STD + MEAN, torch.tensor(obs["proprio"])[None])
    assert batch["task"] == [obs["instruction"]]


def test_the_actions_are_those_of_the_loop_that_lerobot_evaluates_with() -> None:
    policy, inner = wrapped(), FakePolicy(Config())
    obs, _ = PictureEnv().reset()
    policy.reset(TASK, 7)
    ours = [action for _ in range(2) for action in policy.act(obs).actions]
    batch = {IMAGE: torch.tensor(obs["agentview"]).permute(2, 0, 1)[None] / 255.0}
    batch |= {WRIST: torch.tensor(obs["robot0_eye_in_hand"]).permute(2, 0, 1)[None] / 255.0}
    batch |= {STATE: torch.tensor(obs["proprio"])[None], "task": [obs["instruction"]]}
    theirs = []
    with torch.inference_mode():
        for step in range(6):
            torch.manual_seed(int(np.random.SeedSequence([7, step // 3]).generate_state(1)[0]))
            theirs.append(after(inner.select_action(before(batch))).clamp(-1, 1)[0].numpy())
    assert len(ours) == len(theirs)
    assert all(same(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_chunk_is_as_long_as_the_policy_says_or_as_asked() -> None:
    obs, _ = PictureEnv().reset()
    for execute, expected in ((0, 3), (1, 1), (6, 6)):
        policy = wrapped(execute=execute)
        policy.reset(TASK, 0)
        assert policy.act(obs).actions.shape == (expected, 7)
        assert policy.fingerprint == f"lerobot-fake-abc-{expected}"
    for wrong in (7, -1, 1.5):
        with pytest.raises(OptionError, match="an integer from 1 to 6, or 0 for the policy's own"):
            wrapped(execute=wrong)


@pytest.mark.parametrize("config", [Config(n_obs_steps=2), Config(temporal_ensemble_coeff=0.0)])
def test_a_policy_that_looks_back_sees_every_step(config: Config) -> None:
    obs, _ = PictureEnv().reset()
    policy = wrapped(config)
    policy.reset(TASK, 0)
    assert [len(policy.act(obs).actions) for _ in range(4)] == [1] * 4
    assert len(policy._inner._past) == config.n_obs_steps
    with pytest.raises(OptionError, match="execute is 2; expected none: 'fake' must see every step"):
        wrapped(config, execute=2)


def test_noise_comes_from_the_episodes_seed_and_leaves_the_global_generator_alone() -> None:
    obs, _ = PictureEnv().reset()
    policy = wrapped()
    torch.manual_seed(5)
    untouched = torch.get_rng_state()
    answers = []
    for seed in (1, 1, 2):
        policy.reset(TASK, seed)
        answers.append([policy.act(obs).actions for _ in range(2)])
    assert torch.equal(torch.get_rng_state(), untouched)
    assert same(np.array(answers[0]), np.array(answers[1]))
    assert not same(np.array(answers[0]), np.array(answers[2]))
    assert not same(answers[0][0], answers[0][1])


def test_keys_are_named_and_never_guessed() -> None:
    other = Config(input_features=dict.fromkeys(("observation.images.front", STATE)))
    with pytest.raises(UnfitFeaturesError) as caught:
        wrapped(other)
    assert str(caught.value) == (
        f"the LeRobot policy reads observation.images.front, observation.state; expected only "
        f"['{IMAGE}', '{WRIST}', '{STATE}']: name its own keys with agentview=KEY, wrist=KEY and state=KEY, none of "
        f"which is guessed"
    )
    named = wrapped(other, keys=Keys((("agentview", "observation.images.front"),)))
    assert named.cameras == ("agentview",)
    with pytest.raises(UnfitFeaturesError, match=r"reads observation\.state"):
        wrapped(Config(input_features={STATE: None}))
    with pytest.raises(UnfitFeaturesError, match=r"answers actions of shape \(6,\); expected \(7,\)"):
        wrapped(Config(output_features={"action": SimpleNamespace(shape=(6,))}))


def test_stages_add_up_to_the_time_of_a_query() -> None:
    import time

    obs, _ = PictureEnv().reset()
    policy = wrapped()
    policy.reset(TASK, 0)
    shares = []
    for _ in range(20):
        began = time.perf_counter()
        stages = policy.act(obs).stages_ms
        shares.append(sum(stages.values()) / (time.perf_counter() - began) / 1e3)
        assert set(stages) == {"preprocess", "model", "postprocess"}
    assert 0.9 < max(shares) <= 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"type": "fake"}))
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        (tmp_path / name).write_text("{}")
    save_file(FakePolicy(Config()).state_dict(), tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> SimpleNamespace:
    """A stand-in for the package, with the calls of lerobot 0.4.4's own evaluation."""
    asked = SimpleNamespace(weights=lambda policy: policy)

    class PreTrainedConfig:
        @classmethod
        def from_pretrained(cls, path, local_files_only):
            assert (path, local_files_only) == (str(folder), True)
            return Config()

    class Loading(FakePolicy):
        @classmethod
        def from_pretrained(cls, path, config, local_files_only):
            return asked.weights(cls(config))

    def make_pre_post_processors(config, path, preprocessor_overrides):
        assert preprocessor_overrides == {"device_processor": {"device": config.device}}
        return before, after

    factory, policies = ModuleType("lerobot.policies.factory"), ModuleType("lerobot.configs.policies")
    factory.__dict__.update(
        get_policy_class={"fake": Loading}.__getitem__, make_pre_post_processors=make_pre_post_processors
    )
    policies.__dict__.update(PreTrainedConfig=PreTrainedConfig)
    for name in ("lerobot", "lerobot.policies", "lerobot.configs"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, factory.__name__, factory)
    monkeypatch.setitem(sys.modules, policies.__name__, policies)
    return asked


def test_a_checkpoint_is_loaded_by_its_directory(folder: Path, installed: SimpleNamespace) -> None:
    policy = registry.policy(f"lerobot:{folder},execute=2")
    check_policy(policy, PictureEnv(), TASK)
    assert policy.name == "lerobot-fake"
    assert policy.fingerprint.endswith("-2")


def test_other_weights_or_another_normalisation_are_another_fingerprint(
    folder: Path, installed: SimpleNamespace
) -> None:
    prints = [load(str(folder)).fingerprint]
    (folder / "policy_postprocessor.json").write_text('{"steps": []}')
    prints.append(load(str(folder)).fingerprint)
    (folder / "README.md").write_text("a better description")
    assert load(str(folder)).fingerprint == prints[1]
    assert len(set(prints)) == 2


def test_weights_that_lerobot_has_not_loaded_are_noticed(folder: Path, installed: SimpleNamespace) -> None:
    def random(policy: FakePolicy) -> FakePolicy:  # as its pi0 after an error, which it only prints
        torch.nn.init.zeros_(policy.head.weight)
        return policy

    installed.weights = random
    with pytest.raises(LeRobotCheckpointError, match=r"holds another 'head\.weight' than LeRobot has loaded"):
        load(str(folder))
    save_file({"something.else": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(LeRobotCheckpointError, match="shares no tensor's name"):
        load(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "policy_preprocessor.json"])
def test_an_incomplete_checkpoint_is_refused_before_lerobot_is_asked(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(LeRobotCheckpointError, match=f"has no {name}; expected a directory with config.json"):
        registry.policy(f"lerobot:{folder}")


def test_a_machine_without_lerobot_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lerobot", None)
    with pytest.raises(MissingLeRobotError) as caught:
        load(str(folder))
    assert "pip install 'lerobot>=0.4,<0.5'" in str(caught.value)
    assert "remote:ws://HOST:PORT" in str(caught.value)


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_a_device_that_is_not_there_is_refused(folder: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(OptionError, match=f"device is '{device}'"):
        load(str(folder), device=device)
