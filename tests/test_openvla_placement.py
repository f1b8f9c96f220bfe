"""Weights in 8 and 4 bits answer almost alike in less memory; what a machine lacks is said before anything is read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import published
import pytest
import torch
from published import TASK, observation
from test_openvla_loading import MEASURE, save_in_proportion

from vla_bench.errors import MissingPackageError, OptionError
from vla_bench_policies.openvla.oft import OpenVlaOftPolicy
from vla_bench_policies.openvla.placement import BITS, Placement, placed
from vla_bench_policies.openvla.policy import OpenVlaPolicy

LARGEST_ERROR = {"int8": 0.02, "int4": 0.15}
"""Of a layer's output, relative; rows of 8 bits are 256 levels, blocks of 4 bits 16 quantiles."""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("weights") / "small"
    published.save_oft(found, grid=4)
    return found


def answers(folder: Path, **options) -> np.ndarray:
    policy = OpenVlaOftPolicy(str(folder), **options)
    policy.reset(TASK, 0)
    return np.stack([policy.act(observation(seed, 64)).actions[:, :6] for seed in range(6)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", BITS)
def test_a_quantised_layer_computes_almost_the_same(bits: str, dtype: str, folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    whole, quantised = (OpenVlaPolicy(str(folder), dtype=dtype, quantise=kind).trunk for kind in ("", bits))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 20, published.WIDTH, generator=draw).to(whole.words)
    first, second = (trunk.stack._layers[1] for trunk in (whole, quantised))
    for name in ("qkv", "out", "gate_up"):
        expected, found = getattr(first, name)(x).float(), getattr(second, name)(x).float()
        error = float((found - expected).norm() / expected.norm())
        assert 1e-4 < error < LARGEST_ERROR[bits], (name, error)


def test_answers_in_8_bits_are_close_to_the_unquantised_ones(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    whole, quantised = (answers(folder, dtype="float32", quantise=bits) for bits in ("", "int8"))
    spread = np.abs(whole - whole.mean(axis=0)).mean()
    assert 0 < np.abs(whole - quantised).mean() < 0.15 * spread


def test_bits_are_part_of_the_fingerprint_and_the_weights_hash_is_that_of_the_files(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    prints = [OpenVlaPolicy(str(folder), quantise=bits).fingerprint for bits in ("", *BITS)]
    assert len(set(prints)) == 3
    assert len({one.partition("-")[0] for one in prints}) == 1  # so its gates fit all of them


def test_methods_work_on_quantised_weights(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from vla_bench import registry

    policy = registry.method("random:0.5").apply(OpenVlaOftPolicy(str(folder), quantise="int4"))
    policy.reset(TASK, 0)
    shares = [policy.act(observation(seed, 64) | {"instruction": "open"}).cache["effective"] for seed in range(2)]
    assert shares == [0.0, 0.5]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("bits", "most"), [("int8", 0.45), ("int4", 0.30)])
def test_quantised_weights_take_a_part_of_the_memory_and_loading_never_more_than_the_checkpoint(
    bits: str, most: float, tmp_path: Path
) -> None:
    """Of a checkpoint in float32, of which the decoder's matrices are nine tenths."""
    pytest.importorskip("bitsandbytes")
    environment = save_in_proportion(tmp_path)
    command = [sys.executable, "-c", MEASURE, str(tmp_path), bits]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    size, peak, after = map(int, done.stdout.split())
    assert after < most * size, after / size
    assert peak < 1.2 * size, peak / size


def test_layers_are_divided_among_gpus_in_order() -> None:
    placement = Placement(torch.device("cuda"), gpus=3)
    places = [placement.of_layer(index, 32).index for index in range(32)]
    assert places == sorted(places)
    assert [places.count(gpu) for gpu in range(3)] == [11, 11, 10]
    assert Placement().of_layer(31, 32) == torch.device("cpu")


def test_rows_go_to_the_device_of_a_layer_and_come_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by a layer that says it is elsewhere: every product gets rows that were sent there, all others are home."""
    policy = OpenVlaPolicy(str(folder), dtype="float32", packed=False)
    there, layer = torch.device("cpu", 0), policy.trunk.stack._layers[2]
    sent: list[torch.device] = []
    plain = torch.Tensor.to

    def to(self, *arguments, **options):
        if arguments and isinstance(arguments[0], torch.device):
            sent.append(arguments[0])
        return plain(self, *arguments, **options)

    layer.device = there
    monkeypatch.setattr(torch.Tensor, "to", to)
    x = torch.randn(1, 5, published.WIDTH)
    rotation = policy.trunk.stack.rotation(torch.arange(5)[None], x)
    policy.trunk.stack.layer(2, x, rotation, lambda query, key, value: value)
    assert sent == [there, x.device, there, x.device]


@pytest.mark.parametrize(("options", "found"), [
    ({"quantise": "int2"}, "quantise is 'int2'; expected 'int8' or 'int4'"),
    ({"gpus": 2}, "gpus is 2; expected an integer from 1 to 1 with device=cpu"),
    ({"gpus": True}, "gpus is True"),
])  # fmt: skip
def test_an_option_out_of_range_is_refused(options: dict, found: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=found):
        OpenVlaPolicy(str(tmp_path / "nowhere"), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="device is 'cuda'; expected 'cpu': torch finds no GPU"):
        OpenVlaPolicy(str(tmp_path / "nowhere"), device="cuda", gpus=2)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackageError) as caught:
        placed("cpu", "bfloat16", quantise="int4")
    assert str(caught.value) == (
        "'quantise=int4' needs 'bitsandbytes', which cannot be imported (ModuleNotFoundError: import of bitsandbytes "
        "halted; None in sys.modules): pip install 'vla-bench[quantised]', or run 'vla-bench doctor'"
    )
