"""Published checkpoints are loaded whole, once, or refused with the name of what is wrong."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import published
import pytest
import torch
from safetensors.torch import load_file, save_file

from vla_bench.errors import OptionError
from vla_bench_envs.libero.suites import find_suite
from vla_bench_policies.openvla import model, tensors
from vla_bench_policies.openvla.config import DecoderShape, read_config
from vla_bench_policies.openvla.errors import PublishedCheckpointError, StatisticsKeyError
from vla_bench_policies.openvla.model import load_trunk
from vla_bench_policies.openvla.pickles import Held
from vla_bench_policies.openvla.placement import Placement
from vla_bench_policies.openvla.policy import OpenVlaPolicy
from vla_bench_policies.openvla.tensors import Shards
from vla_bench_policies.openvla.vision import PREFIXES, FusedTowers, Projector, TowerShape

SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    published.save_openvla(tmp_path / "small", grid=4)
    return tmp_path / "small"


def change_shard(folder: Path, name: str, change) -> str:
    """Change what the shard of a tensor holds, and return its file name."""
    file = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    held = load_file(folder / file)
    change(held)
    save_file(held, folder / file)
    return file


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> model.Trunk:
    return load_trunk(Shards(folder), read_config(folder).decoder, Placement(dtype=dtype))


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / SECOND).unlink()
    with pytest.raises(PublishedCheckpointError) as caught:
        loaded(folder)
    assert str(caught.value) == (
        f"{folder}: shard '{SECOND}' is missing, 2 of 3 shards are there; expected all of "
        f"model.safetensors.index.json. Download the checkpoint again, with all of its files, into one folder, and "
        f"name that folder"
    )


def test_a_truncated_shard_is_named(folder: Path) -> None:
    whole = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PublishedCheckpointError, match=f"{SECOND}: it cannot be read"):
        loaded(folder)


def test_a_tensor_that_the_index_promises_and_no_shard_has_is_named(folder: Path) -> None:
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    file = change_shard(folder, name, lambda held: held.pop(name))
    with pytest.raises(PublishedCheckpointError, match=f"{file}: it lacks the tensor {name!r}"):
        loaded(folder)


@pytest.mark.parametrize("name", ["projector.fc2.bias", "language_model.model.layers.2.self_attn.k_proj.weight"])
def test_a_wrong_shape_is_named_with_the_right_one(folder: Path, name: str) -> None:
    change_shard(folder, name, lambda held: held.update({name: torch.zeros(3, 3, 3)}))
    with pytest.raises(PublishedCheckpointError) as caught:
        loaded(folder)
    right = published.shapes(4)[name]
    assert f"{folder}: the tensor {name!r} has shape (3, 3, 3); expected {right}." in str(caught.value)


def test_a_tensor_too_many_is_named(folder: Path) -> None:
    more = {"language_model.adapter.weight": torch.zeros(2)}
    change_shard(folder, "projector.fc2.bias", lambda held: held.update(more))
    with pytest.raises(PublishedCheckpointError, match=r"a tensor 'language_model.adapter.weight' too many"):
        loaded(folder)


def test_a_decoder_of_another_depth_than_the_config_says_is_refused(folder: Path) -> None:
    source, shape = Shards(folder), read_config(folder).decoder
    with pytest.raises(PublishedCheckpointError, match=r"layers\.4\..*' is missing"):
        load_trunk(source, DecoderShape(**{**shape.__dict__, "layers": 5}), Placement(dtype=torch.float32))


def test_other_towers_are_refused_by_name(folder: Path) -> None:
    published.write_config(folder, timm_model_ids=["vit_so400m_patch14_siglip_224"])
    with pytest.raises(PublishedCheckpointError, match="vision towers"):
        read_config(folder)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(PublishedCheckpointError, match=f"there is no {file}"):
        OpenVlaPolicy(str(folder))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublishedCheckpointError, match="there is no such folder"):
        OpenVlaPolicy(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(("options", "found"), [
    ({"dtype": "int4"}, "dtype is 'int4'; expected 'bfloat16' or 'float32'"), ({"device": "tpu"}, "device is 'tpu'"),
])  # fmt: skip
def test_an_option_out_of_range_is_refused_before_anything_is_read(tmp_path: Path, options: dict, found: str) -> None:
    with pytest.raises(OptionError, match=found):
        OpenVlaPolicy(str(tmp_path / "nowhere"), **options)


def test_statistics_are_the_suites_own_and_their_absence_names_what_there_is(folder: Path) -> None:
    from dataclasses import replace

    policy = OpenVlaPolicy(str(folder))
    policy.reset(published.TASK, 0)
    policy.reset(replace(published.TASK, dataset=find_suite("libero-spatial-swap@1").dataset), 0)  # its parent's
    with pytest.raises(StatisticsKeyError) as caught:
        policy.reset(replace(published.TASK, dataset="libero_goal"), 0)
    assert str(caught.value) == (
        f"{folder} has no statistics 'libero_goal' to turn its answers into actions; it has libero_spatial: use the "
        f"checkpoint that was trained for this suite, or name statistics with stats=..."
    )
    with pytest.raises(StatisticsKeyError, match="'libero_spatiel'"):
        OpenVlaPolicy(str(folder), stats="libero_spatiel").reset(published.TASK, 0)


def test_statistics_without_idle_steps_count_as_the_suites_own(folder: Path) -> None:
    renamed = {"libero_spatial_no_noops": published.STATISTICS["libero_spatial"], "libero_10": {}}
    (folder / "dataset_statistics.json").write_text(json.dumps(renamed))
    OpenVlaPolicy(str(folder)).reset(published.TASK, 0)


def test_without_a_file_of_statistics_the_config_has_them(folder: Path) -> None:
    (folder / "dataset_statistics.json").unlink()
    OpenVlaPolicy(str(folder), stats="bridge_orig").reset(published.TASK, 0)
    with pytest.raises(StatisticsKeyError, match="it has bridge_orig"):
        OpenVlaPolicy(str(folder)).reset(published.TASK, 0)


def test_one_file_without_an_index_is_the_same_checkpoint(folder: Path, tmp_path: Path) -> None:
    before = loaded(folder).sha256
    every = {name: one for file in sorted(folder.glob("*.safetensors")) for name, one in load_file(file).items()}
    for file in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        file.unlink()
    save_file(every, folder / "model.safetensors")
    assert loaded(folder).sha256 == before


def test_one_changed_weight_is_another_fingerprint(folder: Path) -> None:
    before = loaded(folder).sha256
    name = "language_model.model.layers.2.self_attn.k_proj.weight"
    change_shard(folder, name, lambda held: held[name].view(-1)[7].add_(1))
    assert loaded(folder).sha256 != before


def test_what_the_published_forward_does_not_use_is_not_read(folder: Path) -> None:
    intakes = []
    keep = tensors.Intake.__init__

    class Watched(tensors.Intake):
        def __init__(self, *arguments):
            keep(self, *arguments)
            intakes.append(self)

    original, model.Intake = model.Intake, Watched
    try:
        loaded(folder)
    finally:
        model.Intake = original
    unread = set(published.shapes(4)) - intakes[0].taken
    assert all(name.startswith("vision_backbone.") for name in unread)
    last = {
        f"featurizer.blocks.{published.DINO['depth'] - 1}",
        f"fused_featurizer.blocks.{published.SIGLIP['depth'] - 1}",
    }
    parts = {".".join(name.removeprefix("vision_backbone.").split(".")[:3]) for name in unread}
    assert {part for part in parts if ".blocks." in part} == last
    assert {part.split(".")[1] for part in parts if ".blocks." not in part} == {"norm", "attn_pool"}


def test_the_published_seven_billion_parameters_have_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory: names and shapes of `openvla/openvla-7b`, of which 43 tensors are not used."""
    monkeypatch.setattr(published, "DINO", published.DINO | {"width": 1024, "hidden": 4096, "depth": 24})
    monkeypatch.setattr(published, "SIGLIP", published.SIGLIP | {"width": 1152, "hidden": 4304, "depth": 27})
    for name, value in (("WIDTH", 4096), ("HIDDEN", 11008), ("LAYERS", 32)):
        monkeypatch.setattr(published, name, value)
    held = Held(
        Path("published"), {name: torch.empty(size, device="meta") for name, size in published.shapes().items()}
    )
    towers = [TowerShape.of(held, f"vision_backbone.{prefix}.") for prefix in PREFIXES]
    with torch.device("meta"):
        modules = {"vision_backbone.": FusedTowers((towers[0], towers[1])), "projector.": Projector(2176, 4096)}
    wanted = {f"language_model.model.{name}": size for name, size in model._decoder_shapes(DecoderShape()).items()}
    for name in ("model.embed_tokens", "lm_head"):
        wanted[f"language_model.{name}.weight"] = (32064, 4096)
    for prefix, module in modules.items():
        wanted |= {prefix + name: tuple(one.shape) for name, one in module.state_dict().items()}
    assert {name: held.shape(name) for name in wanted} == wanted
    assert (len(list(held.names())), len(list(held.names())) - len(wanted)) == (982, 43)
    model._check_nothing_is_left(held, set(wanted), scored=True)
    assert held.n_bytes / 4 == pytest.approx(7.54e9, rel=1e-3)


def test_progress_is_shown_in_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Bar(model.Progress):
        def __init__(self, **options):
            super().__init__(**options | {"show": True, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(model, "Progress", Bar)
    loaded(folder)
    (bar,) = bars
    assert (bar.desc, bar.unit) == ("load small", "B")
    assert 0.9 * bar.total < bar.n <= bar.total


MEASURE = """
import sys, torch
from pathlib import Path
from vla_bench_policies.openvla.config import read_config
from vla_bench_policies.openvla.model import load_trunk
from vla_bench_policies.openvla.pickles import Held
from vla_bench_policies.openvla.placement import Placement
from vla_bench_policies.openvla.tensors import Shards
from vla_bench_policies.openvla.vision import PREFIXES, FusedTowers, Projector, TowerShape
import torch._dynamo, transformers, tqdm
def field(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
folder = Path(sys.argv[1])
source, shape = Shards(folder), read_config(folder).decoder
placement = Placement(dtype=torch.float32, quantise=sys.argv[2])
if placement.quantise:
    placement.product()(torch.ones(64, 64))(torch.ones(1, 64))
torch.ops.mkldnn._reorder_linear_weight(torch.ones(64, 64))
Path("/proc/self/clear_refs").write_text("5")
before = field("VmRSS")
trunk = load_trunk(source, shape, placement)
print(source.n_bytes, field("VmHWM") - before, field("VmRSS") - before)
"""


def save_in_proportion(folder: Path) -> dict[str, str]:
    """Write a checkpoint in the proportions of the published model: the decoder is nine tenths of it, in many layers.

    Return the environment in which the C library gives freed memory back at once, as it does of its own accord for
    pieces as large as the published ones.
    """
    wide, hidden, layers = 512, 1376, 24
    wanted = published.shapes(16)
    sizes = {64: wide, 96: hidden}
    every = {}
    for name, shape in wanted.items():
        if name.startswith("language_model.model.layers.") and ".layers.0." not in name:
            continue
        if name.startswith(("language_model.", "projector.fc3", "projector.fc2.bias")):
            shape = tuple(1024 if size == 32064 else sizes.get(size, size) for size in shape)
        elif name == "projector.fc2.weight":
            shape = (wide, shape[1])
        copies = layers if ".layers.0." in name else 1
        for index in range(copies):
            every[name.replace(".layers.0.", f".layers.{index}.")] = torch.randn(shape)
    published.write_shards(folder, every)
    text = {
        "vocab_size": 1024, "hidden_size": wide, "intermediate_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": 8, "num_key_value_heads": 8,
    }  # fmt: skip
    published.write_config(folder, text_config=text)
    published.write_preprocessor(folder)
    del every
    return os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_at_most_a_fifth_more_than_the_checkpoint_at_any_moment(tmp_path: Path) -> None:
    environment = save_in_proportion(tmp_path)
    command = [sys.executable, "-c", MEASURE, str(tmp_path), ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    size, peak, _ = map(int, done.stdout.split())
    assert size > 250e6
    assert peak < 1.2 * size
