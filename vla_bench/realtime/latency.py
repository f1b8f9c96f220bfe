"""How long an answer takes on the virtual clock."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np

from vla_bench import journal
from vla_bench.contestant import Answer
from vla_bench.errors import OptionError, VlaBenchError

MEASURED = "measured"


class LatencyError(VlaBenchError):
    """Refuse what does not say how long answers take."""

    def __init__(self, source: str, found: str, expected: str) -> None:
        super().__init__(f"{source} does not say how long answers take: {found}; expected {expected}")


class Latency(Protocol):
    """Says how long answers take."""

    @property
    def name(self) -> str:
        """Return what a plan calls it, with a hash of whatever else decides its answers."""
        ...

    @property
    def fingerprint(self) -> str:
        """Return what must be equal between episodes that are compared."""
        ...

    def ms(self, answer: Answer, method: str, is_first: bool, rng: np.random.Generator) -> float:
        """Return the time of an answer [ms].

        Args:
            answer: What came back, with the time that it took here.
            method: Under which it was given.
            is_first: Whether it is the first of its episode.
            rng: Of the episode.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """Every answer takes the same time."""

    duration_ms: float

    @property
    def name(self) -> str:
        """Return for example `80`."""
        return f"{self.duration_ms:g}"

    @property
    def fingerprint(self) -> str:
        """Return the name: it says all."""
        return f"{self.name} ms"

    def ms(self, answer: Answer, method: str, is_first: bool, rng: np.random.Generator) -> float:
        """Return the time."""
        return self.duration_ms


@dataclass(frozen=True)
class Measured:
    """An answer takes what it took here and now: another computer, another path."""

    @property
    def name(self) -> str:
        """Return `measured`."""
        return MEASURED

    @property
    def fingerprint(self) -> str:
        """Return the name; processor and accelerator are conditions anyhow."""
        return MEASURED

    def ms(self, answer: Answer, method: str, is_first: bool, rng: np.random.Generator) -> float:
        """Return the policy's time."""
        return answer.policy_ms


@dataclass(frozen=True)
class Trace:
    """Answers take what a method's answers took in a recorded run, drawn anew for each with the episode's seed."""

    source: str
    first_ms: Mapping[str, np.ndarray]
    """By method, of the first queries of episodes."""
    later_ms: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        """Return where it comes from."""
        return self.source

    @property
    def fingerprint(self) -> str:
        """Return a hash of the times."""
        digest = hashlib.sha256()
        for part in (self.first_ms, self.later_ms):
            for method, values in sorted(part.items()):
                digest.update(method.encode() + np.ascontiguousarray(values, float).tobytes())
        return f"trace {digest.hexdigest()[:16]}"

    @classmethod
    def of_run(cls, directory: Path) -> "Trace":
        """Return the times of a run; warm-up and what ended in an error are left out.

        Raises:
            LatencyError: If it holds no timed query.
        """
        first: dict[str, list[float]] = {}
        later: dict[str, list[float]] = {}
        for record in journal.read(directory):
            for query in () if record.is_broken or not record.timed else record.queries:
                if not query.is_warmup:
                    (first if query.is_first_step else later).setdefault(record.method, []).append(query.policy_ms)
        if not later:
            raise LatencyError(str(directory), "it holds no timed query", "a run of a timed plan, of enough episodes")
        for method, values in later.items():
            first.setdefault(method, values)
        return cls(str(directory), *({key: np.array(part[key]) for key in part} for part in (first, later)))

    def ms(self, answer: Answer, method: str, is_first: bool, rng: np.random.Generator) -> float:
        """Return a recorded time.

        Raises:
            LatencyError: If the method was not in that run.
        """
        values = (self.first_ms if is_first else self.later_ms).get(method)
        if values is None:
            raise LatencyError(self.source, f"it has no times of {method!r}", f"one of {', '.join(self.later_ms)}")
        return float(rng.choice(values))


@dataclass(frozen=True)
class DeviceProfile:
    """Another device, by two numbers: a time that every answer takes, and a rate of operations."""

    device: str
    """What it is."""

    fixed_ms: float
    """Of every answer: preprocessing, launches, transport."""

    gflop_per_s: float
    """Operations that it does in a second, 1e9, in this kind of work: measured, not the data sheet's."""

    source: str
    """Where the numbers come from: a command, a paper, a table."""

    @property
    def name(self) -> str:
        """Return the device."""
        return self.device

    @property
    def fingerprint(self) -> str:
        """Return the device and its numbers."""
        return f"{self.device}: {self.fixed_ms:g} ms + {self.gflop_per_s:g} GFLOP/s"

    @classmethod
    def read(cls, path: Path) -> "DeviceProfile":
        """Return the profile of a TOML file.

        Raises:
            LatencyError: If the file is missing, is no TOML or has other fields.
        """
        expected = f"TOML with {', '.join(own.name for own in fields(cls))}"
        try:
            profile = cls(**tomllib.loads(path.read_text()))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as caught:
            raise LatencyError(str(path), str(caught), expected) from None
        numbers = (profile.fixed_ms, profile.gflop_per_s)
        if not all(isinstance(one, int | float) and np.isfinite(one) and one >= 0 for one in numbers) or not numbers[1]:
            raise LatencyError(str(path), f"fixed_ms, gflop_per_s are {json.dumps(numbers)}", "numbers above 0")
        return profile

    def ms(self, answer: Answer, method: str, is_first: bool, rng: np.random.Generator) -> float:
        """Return the time that this device would take.

        Raises:
            LatencyError: If the policy does not count its operations.
        """
        if answer.chunk.flops is None:
            raise LatencyError(self.device, f"{method!r} does not count its operations", "a policy that reports flops")
        return self.fixed_ms + answer.chunk.flops / (self.gflop_per_s * 1e6)


def latency(spec: str) -> Latency:
    """Return what a plan's `realtime` says: ms, `measured`, the directory of a run, or the TOML file of a device.

    Raises:
        OptionError: If it is none of these.
        LatencyError: If the run or the file does not say it.
    """
    if spec == MEASURED:
        return Measured()
    path = Path(spec)
    if path.suffix == ".toml":
        return DeviceProfile.read(path)
    if path.is_dir():
        return Trace.of_run(path)
    try:
        duration_ms = float(spec)
    except ValueError:
        duration_ms = -1.0
    if not 0 <= duration_ms < float("inf"):
        raise OptionError(
            "--realtime", spec, "milliseconds, 'measured', the directory of a timed run, or a device's TOML file"
        )
    return Constant(duration_ms)
