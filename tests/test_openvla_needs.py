"""What a published checkpoint needs, told before it is downloaded."""

import json
from pathlib import Path

import published
import pytest
import torch

from vla_bench.doctor import Doctor, Finding
from vla_bench_policies.openvla import needs as module
from vla_bench_policies.openvla.needs import CATALOGUE, needs

SUITE = "libero_spatial"


@pytest.fixture(autouse=True)
def _a_small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE", 64)


def found(spec: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in needs(spec)}


def test_a_checkpoint_that_is_not_here_is_told_with_its_size_and_its_download() -> None:
    told = found("openvla-7b")
    assert not told["checkpoint"].fine
    assert told["checkpoint"].found == "weights/openvla-7b is not here: 15.1 GB to download"
    assert told["checkpoint"].advice == "hf download openvla/openvla-7b --local-dir weights/openvla-7b"
    assert {"safetensors", "tokenizers", "disk", "memory", "pace"} <= set(told)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_known_checkpoint_is_told_about(name: str) -> None:
    assert not found(name)["checkpoint"].fine
    assert found(name)["checkpoint"].advice.startswith("hf download ")


@pytest.mark.parametrize(("save", "policy"), [(published.save_openvla, "openvla"), (published.save_cogact, "cogact")])
def test_a_checkpoint_that_is_here_is_told_with_its_statistics(save, policy: str, tmp_path: Path) -> None:
    save(tmp_path / "small", grid=4)
    told = found(f"{policy}:{tmp_path}/small")
    assert told["checkpoint"] == Finding("checkpoint", True, f"{tmp_path}/small, whole")
    assert told["statistics"].found == f"of {'bridge_orig, fractal20220817_data' if policy == 'cogact' else SUITE}"
    assert told["tokenizer"].fine
    assert "disk" not in told


PARTS = {
    "tokenizer.json": "tokenizer",
    "dataset_statistics.json": "statistics",
    "preprocessor_config.json": "config",
    "action_head--150000_checkpoint.pt": "action_head",
    "proprio_projector--150000_checkpoint.pt": "proprio_projector",
    "vision_backbone--100000_checkpoint.pt": "vision_backbone",
}


@pytest.fixture(scope="module")
def with_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "film"
    published.save_oft(folder, grid=4, film=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"norm_stats": {}}))
    return folder


@pytest.mark.parametrize("file", PARTS)
def test_every_part_that_is_missing_is_named_and_the_others_are_fine(file: str, with_film: Path) -> None:
    spec, aside = f"openvla-oft:{with_film},film=True", with_film.parent / file
    assert all(found(spec)[part].fine for part in (*PARTS.values(), "checkpoint"))
    (with_film / file).rename(aside)
    try:
        told = found(spec)
    finally:
        aside.rename(with_film / file)
    assert [name for name in ("checkpoint", *PARTS.values()) if not told[name].fine] == [PARTS[file]]
    assert PARTS[file].partition("_")[0] in told[PARTS[file]].found


def test_the_tokenizer_that_cogact_lacks_is_looked_for_where_it_was_said_to_be(tmp_path: Path) -> None:
    published.save_cogact(tmp_path / "bare", grid=4)
    (tmp_path / "llama").mkdir()
    (tmp_path / "bare" / "tokenizer.json").rename(tmp_path / "llama" / "tokenizer.json")
    assert "there is no tokenizer.json" in found(f"cogact:{tmp_path}/bare")["tokenizer"].found
    assert found(f"cogact:{tmp_path}/bare,tokenizer={tmp_path}/llama")["tokenizer"].fine


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    published.save_openvla(tmp_path / "small", grid=4)
    (tmp_path / "small" / "model-00002-of-00003.safetensors").unlink()
    assert "2 of 3 shards are there" in found(f"openvla:{tmp_path}/small")["checkpoint"].found


def test_memory_and_time_follow_from_type_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_available_gb", lambda: 20.0)
    monkeypatch.setattr(module, "_rate", lambda device, dtype: 1e12)
    assert found("openvla-7b")["memory"] == Finding(
        "memory", True, "18 GB needed on cpu, 20 GB free", "free some, or use a machine with 18 GB"
    )
    assert not found("openvla:x,dtype=float32")["memory"].fine
    assert found("openvla-7b")["pace"].found.startswith("at least 4.1 s a query on cpu: 4.1 TFLOP")
    assert found("openvla-oft:x")["pace"].found.startswith("at least 8.5 s")


def test_bits_need_their_package_and_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_available_gb", lambda: 20.0)
    monkeypatch.setattr(module, "find_spec", lambda package: None if package == "bitsandbytes" else package)
    told = found("openvla:x,quantise=int4")
    assert told["memory"].found == "7 GB needed on cpu, 20 GB free"
    assert told["bitsandbytes"] == Finding("bitsandbytes", False, "missing", "pip install 'vla-bench[quantised]'")
    assert found("openvla:x,quantise=int8")["memory"].found == "10 GB needed on cpu, 20 GB free"
    assert "bitsandbytes" not in found("openvla:x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    assert found("openvla:x,device=cuda")["memory"].found == "torch finds no GPU"
    assert found("openvla:x,device=cuda,gpus=2")["memory"].found == "torch finds no GPUs"


def test_other_policies_are_none_of_its_business() -> None:
    assert not found("reference")


def test_doctor_asks_for_a_policy_or_makes_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert Doctor(policy="openvla-7b").run() == 1
    assert "15.1 GB to download" in capsys.readouterr().out
    Doctor(policy="nothing-of-the-sort").run()
    assert "BAD  policy: no policy named 'nothing-of-the-sort'" in capsys.readouterr().out
    Doctor(policy="reference").run()
    assert "ok   policy: reference-oft, " in capsys.readouterr().out
