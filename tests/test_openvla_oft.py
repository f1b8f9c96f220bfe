"""OpenVLA-OFT in our modules answers as the published computation does, with and without a method."""

from pathlib import Path

import numpy as np
import published
import pytest
import torch
from published import TASK, PublishedEnv, observation
from published_reference import PublishedReference, pixel_values
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vla_bench import registry
from vla_bench.errors import OptionError
from vla_bench.testing import check_policy
from vla_bench_policies.openvla.errors import PublishedCheckpointError, StatisticsKeyError
from vla_bench_policies.openvla.oft import OpenVlaOftPolicy
from vla_bench_policies.openvla.pictures import libero_picture, normalised


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenVlaOftPolicy, PublishedReference]:
    folder = tmp_path_factory.mktemp("weights") / "small"
    tensors = published.save_oft(folder)
    made = OpenVlaOftPolicy(str(folder), dtype="float32")
    made.reset(TASK, 0)
    return made, PublishedReference(folder, tensors)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    published.save_oft(folder, grid=4)
    return folder


def shown(obs: dict) -> list[np.ndarray]:
    """Both pictures as the towers see them; `test_openvla_pictures.py` holds the steps to it against TensorFlow."""
    return [libero_picture(obs[camera], 224, crop=True) for camera in published.CAMERAS]


def test_eight_actions_are_the_independent_ones(whole) -> None:
    made, reference = whole
    answers = []
    for seed in range(20):
        obs = observation(seed)
        found = made.act(obs)
        expected = reference.chunk(shown(obs), obs["instruction"], obs["proprio"].astype(np.float64))
        np.testing.assert_allclose(found.actions, expected, atol=1e-4)
        answers.append(found.actions)
    assert np.std(answers, axis=0)[:, :6].min() > 1e-3  # the inputs matter, in every entry


@pytest.mark.parametrize("changed", ["agentview", "robot0_eye_in_hand", "proprio", "instruction"])
def test_every_input_moves_the_answer(whole, changed: str) -> None:
    made, _ = whole
    obs = observation(0)
    other = dict(obs) | {changed: observation(1)[changed]}
    assert np.abs(made.act(obs).actions - made.act(other).actions).max() > 1e-3


def test_proprioception_is_cut_off_where_the_training_data_ends(whole) -> None:
    made, _ = whole
    obs = observation(0)
    far, further = (made.act(obs | {"proprio": np.full(8, size, np.float32)}).actions for size in (5, 50))
    assert np.array_equal(far, further)


def test_the_rows_are_two_views_state_sentence_and_answer(whole) -> None:
    made, _ = whole
    tokens = made._encoded("open the drawer")
    visual = torch.randn(1, 512, published.WIDTH)
    rows, layout, n_wanted = made.rows(visual, tokens, np.zeros(8))
    assert layout.bidirectional
    assert layout.n_rows == rows.shape[1] == 1 + 512 + 1 + (tokens.shape[1] - 1) + 56 + 1
    assert torch.equal(rows[:, layout.visual], visual)
    assert torch.equal(rows[:, layout.text], made.trunk.embed(tokens[:, 1:-1]))
    assert torch.equal(rows[:, layout.proprio], made.trunk.embed(tokens[:, -1]))
    assert not rows[:, layout.action][:, :56].any()
    assert torch.equal(rows[:, -1:], made.trunk.embed(torch.tensor([[2]])))
    assert rows.shape[1] - n_wanted == layout.proprio  # the answer begins one row before the rows of zeros


def test_the_policy_keeps_its_contract(tiny: Path) -> None:
    check_policy(OpenVlaOftPolicy(str(tiny)), PublishedEnv(64), TASK)


def test_rows_that_are_reused_though_the_pictures_changed_change_the_answer(whole) -> None:
    made, _ = whole
    reusing = registry.method("random:0.8").apply(made)
    reusing.reset(TASK, 0)
    one, other = (observation(seed) | {"instruction": "open the drawer"} for seed in (0, 3))
    reusing.act(one)
    partial = reusing.act(other)
    assert partial.rows_reused == 409
    assert np.abs(partial.actions - made.act(other).actions).max() > 1e-3
    again = reusing.act(other)  # the picture stays: what is recomputed is computed from the same rows
    assert np.isfinite(again.actions).all()


def film_features(
    reference: PublishedReference, tensors: dict, pixels: torch.Tensor, word: torch.Tensor
) -> torch.Tensor:
    """Both towers with FiLM, block by block, written with plain matrix products."""
    found = []
    for tower, shape, part in (
        ("featurizer", published.DINO, slice(0, 3)),
        ("fused_featurizer", published.SIGLIP, slice(3, 6)),
    ):
        own = {
            name.removeprefix(f"vision_backbone.{tower}."): one
            for name, one in tensors.items()
            if name.startswith(f"vision_backbone.{tower}.")
        }
        wide = shape["width"]
        x = F.conv2d(pixels[None, part], own["patch_embed.proj.weight"], own["patch_embed.proj.bias"], stride=14)
        x = x.flatten(2).transpose(1, 2)[0] + own["pos_embed"][0]
        if shape["class"]:
            x = torch.cat((own["cls_token"][0], own["reg_token"][0], x))
        for index in range(shape["depth"] - 1):
            block = {
                name.removeprefix(f"blocks.{index}."): one for name, one in own.items() if f"blocks.{index}." in name
            }
            y = F.layer_norm(x, (wide,), block["norm1.weight"], block["norm1.bias"], 1e-6)
            query, key, value = (y @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]).chunk(3, dim=1)
            heads = []
            for head in range(16):
                columns = slice(head * wide // 16, (head + 1) * wide // 16)
                weights = (query[:, columns] @ key[:, columns].T / (wide / 16) ** 0.5).softmax(dim=1)
                heads.append(weights @ value[:, columns])
            y = torch.cat(heads, dim=1) @ block["attn.proj.weight"].T + block["attn.proj.bias"]
            x = x + y * block.get("ls1.scale_factor", 1.0)
            scale = word @ block["scale.weight"].T + block["scale.bias"]
            x = x * (1 + scale) + word @ block["shift.weight"].T + block["shift.bias"]
            y = F.layer_norm(x, (wide,), block["norm2.weight"], block["norm2.bias"], 1e-6)
            y = F.gelu(y @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]) @ block["mlp.fc2.weight"].T
            x = x + (y + block["mlp.fc2.bias"]) * block.get("ls2.scale_factor", 1.0)
        found.append(x[5:] if shape["class"] else x)
    return torch.cat(found, dim=1)


def test_towers_with_film_are_told_the_words_and_contain_their_low_rank_updates(tmp_path: Path) -> None:
    tensors = published.save_oft(tmp_path / "film", film=True)
    made = OpenVlaOftPolicy(str(tmp_path / "film"), film=True, dtype="float32")
    made.reset(TASK, 0)
    obs = observation(0)
    frames = np.stack(shown(obs))
    tokens = made._encoded(obs["instruction"])
    words = tensors["language_model.model.embed_tokens.weight"][[*tokens[0].tolist(), 2]].mean(dim=0)
    with torch.inference_mode():
        images = normalised(frames, made.config.normalisation)[None]
        found = made.trunk.towers(images, made.told(tokens))[0]
        expected = torch.cat([film_features(None, tensors, pixel_values(frame), words) for frame in frames])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    reference = PublishedReference(tmp_path / "film", tensors)
    reference.features = lambda pixels: film_features(reference, tensors, pixels, words)[None]
    chunk = reference.chunk(list(frames), obs["instruction"], obs["proprio"].astype(np.float64))
    np.testing.assert_allclose(made.act(obs).actions, chunk, atol=1e-4)
    one, other = (made.act(obs | {"instruction": sentence}).actions for sentence in published.SENTENCES[:2])
    assert np.abs(one - other).max() > 1e-3
    assert "film" in made.fingerprint


@pytest.mark.parametrize("film", [False, True])
def test_the_formula_counts_what_torch_counts(film: bool, tmp_path: Path) -> None:
    published.save_oft(tmp_path / "tiny", grid=4, film=film)
    made = OpenVlaOftPolicy(str(tmp_path / "tiny"), film=film, dtype="float32", packed=False)
    made.reset(TASK, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        answer = made.act(observation(0, 64))
    assert answer.flops == counter.get_total_flops()


@pytest.mark.parametrize("part", ["action_head", "proprio_projector"])
def test_a_component_that_is_missing_twice_there_or_of_another_shape_is_named(part: str, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    published.save_oft(folder, grid=4)
    file = folder / f"{part}--150000_checkpoint.pt"
    (folder / f"{part}--50000_checkpoint.pt").write_bytes(file.read_bytes())
    with pytest.raises(PublishedCheckpointError, match=f"2 files of '{part}'"):
        OpenVlaOftPolicy(str(folder))
    (folder / f"{part}--50000_checkpoint.pt").unlink()
    held = torch.load(file)
    name = next(name for name in held if name.endswith("fc2.weight"))
    torch.save(held | {name: torch.zeros(3, 3)}, file)
    with pytest.raises(PublishedCheckpointError, match=rf"{file.name}: the tensor '.*fc2.weight' has shape \(3, 3\)"):
        OpenVlaOftPolicy(str(folder))
    file.write_bytes(b"no tensors")
    with pytest.raises(PublishedCheckpointError, match=f"{file.name}: it cannot be read"):
        OpenVlaOftPolicy(str(folder))
    file.unlink()
    with pytest.raises(PublishedCheckpointError, match=f"0 files of '{part}'; expected exactly one"):
        OpenVlaOftPolicy(str(folder))


def test_a_part_of_a_chunk_is_applied_and_no_more_than_there_is(tiny: Path) -> None:
    made = OpenVlaOftPolicy(str(tiny), execute=3)
    made.reset(TASK, 0)
    assert made.act(observation(0, 64)).actions.shape == (3, 7)
    with pytest.raises(OptionError, match="execute is 9; expected an integer from 1 to 8"):
        OpenVlaOftPolicy(str(tiny), execute=9)


def test_statistics_without_proprioception_are_refused(tiny: Path) -> None:
    made = OpenVlaOftPolicy(str(tiny))
    made.reset(TASK, 0)
    made._statistics = {made._key: {"action": {}}}
    with pytest.raises(StatisticsKeyError, match="'libero_spatial_no_noops/proprio'"):
        made.act(observation(0, 64))
