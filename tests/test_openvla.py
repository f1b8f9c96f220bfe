"""OpenVLA in our modules answers as the published computation does, with and without a method."""

from pathlib import Path

import numpy as np
import published
import published_reference
import pytest
import torch
from published import TASK, PublishedEnv, observation
from published_reference import PublishedReference, pixel_values
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vla_bench import registry
from vla_bench.testing import check_policy
from vla_bench_policies.openvla import answers, policy
from vla_bench_policies.openvla.config import read_config
from vla_bench_policies.openvla.errors import UnfitPictureError
from vla_bench_policies.openvla.model import load_trunk
from vla_bench_policies.openvla.pictures import libero_picture, normalised
from vla_bench_policies.openvla.placement import Placement
from vla_bench_policies.openvla.policy import OpenVlaPolicy
from vla_bench_policies.openvla.prompt import Prompter
from vla_bench_policies.openvla.tensors import Shards


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenVlaPolicy, PublishedReference]:
    """A model that sees 224 px, as published, and its independent double."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    tensors = published.save_openvla(folder)
    made = OpenVlaPolicy(str(folder), dtype="float32")
    made.reset(TASK, 0)
    return made, PublishedReference(folder, tensors)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that sees 56 px, for many queries."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    published.save_openvla(folder, grid=4)
    return folder


def test_the_features_of_the_towers_are_those_of_the_librarys_models(whole) -> None:
    made, reference = whole
    shown = libero_picture(observation(0)["agentview"], 224, crop=True)
    images = normalised(shown[None], made.config.normalisation)[None]
    with torch.inference_mode():
        features = made.trunk.towers(images)
        torch.testing.assert_close(features, reference.features(pixel_values(shown)), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(made.trunk.see(images), reference.visual(pixel_values(shown)), rtol=1e-4, atol=1e-4)


def answered(made: OpenVlaPolicy, obs: dict) -> tuple[list[int], np.ndarray]:
    """The seven tokens and the action of one query."""
    decoded: list[int] = []
    plain = made._decoded

    def kept(hidden, layout):
        found = plain(hidden, layout)
        decoded.extend(found.tolist())
        return found

    made._decoded = kept
    action = made.act(obs).actions[0]
    del made._decoded
    return decoded, action


def test_seven_tokens_and_the_action_are_the_independent_ones_for_a_hundred_inputs(whole) -> None:
    """Both are shown the same 8 bits: on the edge of two grey levels, roundings differ in about ten of 150528."""
    made, reference = whole
    different = set()
    for seed in range(100):
        obs = observation(seed)
        tokens, action = answered(made, obs)
        shown = libero_picture(obs["agentview"], 224, crop=True)
        assert tokens == reference.tokens(shown, obs["instruction"]), f"input {seed}"
        np.testing.assert_allclose(action, reference.action(tokens), atol=1e-4)
        different.add(tuple(tokens))
    assert len(different) > 50  # the inputs matter


def test_from_rendered_pixels_to_actions_everything_is_the_independent_computation(whole) -> None:
    made, reference = whole
    for seed in range(20):
        obs = observation(seed)
        tokens, action = answered(made, obs)
        shown = published_reference.libero_picture(obs["agentview"])
        assert tokens == reference.tokens(shown, obs["instruction"]), f"input {seed}"
        np.testing.assert_allclose(action, reference.action(tokens), atol=1e-4)


def test_a_prompt_ends_with_the_empty_token_and_the_sentence_is_in_lower_case(whole) -> None:
    made, reference = whole
    found = made.prompter.tokens("Open the drawer")
    assert found == reference.prompt_ids("open the drawer")
    assert (found[0], found[-1]) == (1, 29871)


def test_an_empty_token_that_is_there_is_not_added_again(tiny: Path) -> None:
    prompter = Prompter(tiny)

    class Ends:
        def encode(self, text):
            return type("Encoding", (), {"ids": [1, 5, 29871]})

    prompter._tokenizer = Ends()
    assert prompter.tokens("") == [1, 5, 29871]


def test_bins_are_counted_down_from_the_end_of_the_vocabulary() -> None:
    tokens = np.array([31999, 31998, 31745, 31744, 31743, 2, 32063])
    values = answers.of_tokens(tokens, 32000, 256)
    first, last = -1 + 1 / 255, 1 - 1 / 255
    np.testing.assert_allclose(values, [first, first + 2 / 255, last, last, last, last, first], atol=1e-12)


def test_the_gripper_closes_with_plus_one_and_is_not_scaled() -> None:
    quantiles = answers.Quantiles.of(published.STATISTICS["libero_spatial"]["action"])
    restored = quantiles.restore(np.array([[-1.0, 1, 0, 0, 0, 0, 0.9], [0.0] * 6 + [0.1]]))
    np.testing.assert_allclose(restored[0, :3], [-0.75, 0.82, 0.0])
    assert restored[:, 6].tolist() == [0.9, 0.1]
    assert answers.for_libero(restored)[:, 6].tolist() == [-1.0, 1.0]


def test_the_policy_keeps_its_contract(tiny: Path) -> None:
    check_policy(OpenVlaPolicy(str(tiny)), PublishedEnv(64), TASK)


@pytest.mark.parametrize("spec", ["random:0.6", "fastv:0.5", "vla-cache:0.9", "keyframe:3", "vla-pruner"])
def test_a_method_saves_rows_and_the_tokens_know(spec: str, whole) -> None:
    made, _ = whole
    method = registry.method(spec).apply(made)
    method.reset(TASK, 0)
    found = [method.act(observation(seed) | {"instruction": "open the drawer"}) for seed in range(5)]
    assert max(answer.cache["effective"] for answer in found) > 0.01  # the pictures have little in common
    assert found[0].cache["rows_per_layer"][0] == 1 + 256 + len(made.prompter.tokens("open the drawer")) - 1


def test_a_still_picture_reused_is_the_same_action(whole) -> None:
    made, _ = whole
    reusing = registry.method("random:0.8").apply(made)
    reusing.reset(TASK, 0)
    first, second = (reusing.act(observation(7)) for _ in range(2))
    assert (first.rows_reused, second.rows_reused) == (0, 204)
    np.testing.assert_allclose(first.actions, second.actions, atol=1e-9)


def test_the_layout_is_bos_then_patches_then_the_sentence(whole) -> None:
    made, _ = whole
    tokens = made._encoded("open the drawer")
    visual = torch.randn(1, 256, published.WIDTH)
    rows, layout, n_wanted = made.rows(visual, tokens, np.zeros(8))
    assert torch.equal(rows[:, layout.visual], visual)
    assert torch.equal(rows[:, layout.text], made.trunk.embed(tokens[:, 1:-1]))
    assert torch.equal(rows[:, layout.proprio], made.trunk.embed(tokens[:, -1]))  # the last row: the empty token
    assert (layout.n_rows - rows.shape[1], n_wanted) == (6, 1)


def test_the_formula_counts_what_torch_counts(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain weights: packed products are invisible to the counter."""
    config = read_config(tiny)
    trunk = load_trunk(Shards(tiny), config.decoder, Placement(dtype=torch.float32, packed=False))
    made = policy.TrunkPolicy.__new__(OpenVlaPolicy)
    made._crop = True
    policy.TrunkPolicy.__init__(made, str(tiny), trunk, config, Prompter(tiny), "")
    made.reset(TASK, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        answer = made.act(observation(0, 64))
    assert answer.flops == counter.get_total_flops()


def test_half_precision_answers_with_almost_the_same_hidden_states(tiny: Path) -> None:
    config = read_config(tiny)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        trunk = load_trunk(Shards(tiny), config.decoder, Placement(dtype=dtype))
        images = torch.randn(1, 1, 6, 56, 56, generator=torch.Generator().manual_seed(0)).to(dtype)
        with torch.inference_mode():
            rows.append(trunk.see(images).float())
    apart = (rows[0] - rows[1]).abs().mean() / rows[0].abs().mean()
    assert 0 < apart < 0.05


def test_a_picture_that_is_none_is_refused(tiny: Path) -> None:
    made = OpenVlaPolicy(str(tiny))
    made.reset(TASK, 0)
    obs = observation(0, 64)
    with pytest.raises(UnfitPictureError) as caught:
        made.act({name: value for name, value in obs.items() if name != "agentview"})
    assert str(caught.value) == (
        "the observation has no camera 'agentview'; 'openvla:tiny' needs pictures (height, width, 3) of agentview in "
        "8 bits: run it with --protocol openvla"
    )
    with pytest.raises(UnfitPictureError, match=r"has float64 images \(64, 64, 3\) of 'agentview'"):
        made.act(obs | {"agentview": obs["agentview"] / 255})


def test_the_registry_knows_the_name() -> None:
    assert "openvla" in registry.names("policy")
