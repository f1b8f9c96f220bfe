"""What a published checkpoint needs, told before 15 GB are downloaded: disk, memory, packages, and time for a query."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from vla_bench import registry
from vla_bench.doctor import Finding
from vla_bench_policies.openvla.answers import read_statistics
from vla_bench_policies.openvla.config import read_config
from vla_bench_policies.openvla.errors import PublishedCheckpointError
from vla_bench_policies.openvla.pickles import component
from vla_bench_policies.openvla.placement import BITS
from vla_bench_policies.openvla.prismatic import read_checkpoint
from vla_bench_policies.openvla.prompt import Prompter
from vla_bench_policies.openvla.tensors import Shards

POLICIES = ("openvla", "openvla-oft", "cogact")

PARAMETERS = 7.54e9
"""Of Prismatic with Llama-2-7B, which all of them are built on."""

DECODER, TOWERS = 6.5e9, 0.73e9
"""Parameters that a row, and a patch of a picture, are multiplied with."""

ROWS = {"openvla": (288, 1), "openvla-oft": (600, 2), "cogact": (282, 1)}
"""Rows of a query with a sentence of about 25 tokens, and pictures of 256 patches."""

ON_GPU, ON_CPU = 1.1, 1.2
"""Memory while it runs, over the weights' own: measured for loading on a CPU, activations and buffers on a GPU."""

PROBE = 1024
"""Side of the matrices by which this machine's rate is measured."""


@dataclass(frozen=True)
class Published:
    """A checkpoint on the model hub."""

    policy: str
    repository: str
    download_gb: float


CATALOGUE = {
    entry.repository.partition("/")[2].lower(): entry
    for entry in (
        Published("openvla", "openvla/openvla-7b", 15.1),
        *(
            Published("openvla", f"openvla/openvla-7b-finetuned-libero-{suite}", 15.1)
            for suite in ("spatial", "object", "goal", "10")
        ),
        *(
            Published("openvla-oft", f"moojink/openvla-7b-oft-finetuned-libero-{suite}", 15.4)
            for suite in ("spatial", "object", "goal", "10", "spatial-object-goal-10")
        ),
        Published("cogact", "CogACT/CogACT-Small", 30.2),
        Published("cogact", "CogACT/CogACT-Base", 30.5),
        Published("cogact", "CogACT/CogACT-Large", 31.4),
    )
}
"""By the name that its authors gave it. Sizes follow from the shapes: two bytes a parameter, CogACT's four."""


def needs(spec: str) -> Iterator[Finding]:
    """Yield what a policy of these adapters, or a published checkpoint, needs and what is missing.

    Args:
        spec: `openvla-7b`, `openvla:FOLDER,device=cuda`, ...

    Raises:
        SpecError: If it cannot be read.
    """
    name, args, options = registry.taken_apart(spec)
    published = CATALOGUE.get(name.lower())
    policy = published.policy if published else name
    if policy not in POLICIES:
        return
    weights = Path(str(args[0] if args else options.get("weights", f"weights/{name}")))
    published = published or CATALOGUE.get(weights.name.lower())
    quantise, gpus = str(options.get("quantise", "")), int(options.get("gpus", 1))
    yield from _packages("bitsandbytes" if quantise else "")
    yield from _files(policy, weights, published, options)
    device = str(options.get("device", "cuda" if torch.cuda.is_available() else "cpu"))
    wide = options.get("dtype", "bfloat16") == "float32"
    yield _memory(device, _weights_gb(4 if wide else 2, quantise), gpus)
    yield _pace(policy, device, torch.float32 if wide else torch.bfloat16)


def _packages(quantiser: str) -> Iterator[Finding]:
    for package in filter(None, ("safetensors", "tokenizers", quantiser)):
        found = find_spec(package) is not None
        extra = "quantised" if package == quantiser else "torch"
        yield Finding(package, found, "installed" if found else "missing", f"pip install 'vla-bench[{extra}]'")


def _weights_gb(bytes_each: int, quantise: str) -> float:
    """Return the size of the weights in memory; only the decoder's are quantised."""
    in_decoder = BITS[quantise] / 8 if quantise in BITS else bytes_each
    return ((PARAMETERS - DECODER) * bytes_each + DECODER * in_decoder) / 1e9


def _files(policy: str, weights: Path, published: Published | None, options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield whether the checkpoint is here and whole, or what its download takes."""
    if weights.is_dir():
        for name, look in _parts(policy, weights, options).items():
            yield _looked_at(name, look)
        return
    if published is None:
        advice = f"download one into it; known are {', '.join(CATALOGUE)}"
        yield Finding("checkpoint", False, f"there is no folder {weights}", advice)
        return
    command = f"hf download {published.repository} --local-dir {weights}"
    yield Finding("checkpoint", False, f"{weights} is not here: {published.download_gb:.1f} GB to download", command)
    free_gb = shutil.disk_usage(next(path for path in weights.absolute().parents if path.exists())).free / 1e9
    yield Finding("disk", free_gb > published.download_gb, f"{free_gb:.0f} GB free", "make room for the download")


def _parts(policy: str, weights: Path, options: Mapping[str, Any]) -> dict[str, Callable[[], str]]:
    """Return what looks at each part of a folder, reads no weights, and says what is there."""
    elsewhere = Path(str(options.get("tokenizer") or weights))

    def checkpoint() -> str:
        (read_checkpoint if policy == "cogact" else Shards)(weights)
        return f"{weights}, whole"

    def statistics() -> str:
        known = sorted(read_statistics(weights))
        if not known:
            raise PublishedCheckpointError(weights, "no statistics", "dataset_statistics.json, or norm_stats in config")
        return f"of {', '.join(known)}"

    def told(read: Callable[[Path], object], folder: Path, found: str) -> str:
        read(folder)
        return found

    parts: dict[str, Callable[[], str]] = {
        "checkpoint": checkpoint,
        "statistics": statistics,
        "tokenizer": partial(told, Prompter, elsewhere, str(elsewhere)),
    }
    if policy != "cogact":
        parts["config"] = partial(told, read_config, weights, "config.json and preprocessor_config.json")
    if policy == "openvla-oft":
        for part in ("action_head", "proprio_projector", *(("vision_backbone",) if options.get("film") else ())):
            parts[part] = partial(_component, weights, part)
    return parts


def _component(weights: Path, part: str) -> str:
    return component(weights, part).path.name


def _looked_at(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except PublishedCheckpointError as caught:
        return Finding(name, False, str(caught), "download what is missing")


def _memory(device: str, weights_gb: float, gpus: int) -> Finding:
    if device == "cuda" and torch.cuda.device_count() < gpus:
        found = f"torch finds {torch.cuda.device_count() or 'no'} GPU{'s' if gpus > 1 else ''}"
        return Finding("memory", False, found, f"device=cpu needs {ON_CPU * weights_gb:.0f} GB")
    if device == "cuda":
        free_gb = sum(torch.cuda.mem_get_info(index)[0] for index in range(gpus)) / 1e9
        wanted = ON_GPU * weights_gb
    else:
        free_gb, wanted = _available_gb(), ON_CPU * weights_gb
    advice = f"free some, or use a machine with {wanted:.0f} GB"
    return Finding("memory", free_gb > wanted, f"{wanted:.0f} GB needed on {device}, {free_gb:.0f} GB free", advice)


def _available_gb() -> float:
    """Return the memory that programs can have without swapping, as Linux says it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 / 1e9


def _pace(policy: str, device: str, dtype: torch.dtype) -> Finding:
    """Return the least time of a query: its operations at the rate of a large matrix product here."""
    rows, views = ROWS[policy]
    operations = 2 * (DECODER * rows + TOWERS * 256 * views)
    where = device if device != "cuda" or torch.cuda.is_available() else "cpu"
    rate = _rate(torch.device(where), dtype)
    seconds = operations / rate
    found = f"at least {seconds:.2g} s a query on {where}: {operations / 1e12:.1f} TFLOP at {rate / 1e12:.2g} TFLOP/s"
    return Finding("pace", seconds < 1, found, "slow for a robot and for a table of 500 episodes: use a GPU")


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the best of three matrix products [operations per second], after one that is not counted."""
    side = PROBE if device.type == "cpu" else 8 * PROBE
    a = torch.randn(side, side, device=device).to(dtype)
    times = []
    for _ in range(4):
        began = perf_counter()
        float((a @ a)[0, 0])
        times.append(perf_counter() - began)
    return 2 * side**3 / min(times[1:])
