"""Say what works on this machine and what to do about what does not."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from vla_bench import provenance, registry
from vla_bench.errors import VlaBenchError

DIAGNOSIS_GROUP = "vla_bench.diagnoses"
"""Entry points that name a callable which yields `Finding`s about an adapter."""

NEEDS_GROUP = "vla_bench.needs"
"""Entry points that name a callable which takes a policy's specification, or the name of a published checkpoint, and
yields `Finding`s about what that needs; nothing about what it does not know."""

MIN_FREE_GB = 2.0
"""Free disk below which results and caches may not fit."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    fine: bool
    found: str
    advice: str = ""
    """What to do if it is not fine."""


@dataclass(frozen=True)
class Doctor:
    """Look at packages, physics, OpenGL, disk and processor; say what to do about what does not work.

    With a policy, also at what that needs, before anything is downloaded: `--policy openvla-7b`.
    """

    results: Path = Path("results")
    """Where results would be written."""

    policy: str = ""
    """A policy as `vla-bench run` takes it, or the name of a published checkpoint that need not be here yet."""

    def run(self) -> int:
        """Print the findings; 1 if something is not fine."""
        findings = list(self.findings())
        for finding in findings:
            print(f"{'ok  ' if finding.fine else 'BAD '} {finding.name}: {finding.found}")
            if not finding.fine and finding.advice:
                print(f"     -> {finding.advice}")
        return 0 if all(finding.fine for finding in findings) else 1

    def findings(self) -> Iterator[Finding]:
        """Yield what is known about the machine, then what the adapters know about themselves."""
        machine = provenance.machine()
        yield Finding("processor", True, f"{machine['processor']}, {machine['cores']} cores")
        yield Finding("accelerator", True, machine["accelerator"])
        found = ", ".join(f"{name} {version}" for name, version in provenance.packages().items())
        yield Finding("packages", True, found)
        yield Finding("code", True, provenance.commit())
        yield self._disk()
        for entry in entry_points(group=DIAGNOSIS_GROUP):
            diagnose: Callable[[], Iterator[Finding]] = entry.load()
            yield from diagnose()
        if self.policy:
            yield from self._needs()

    def _needs(self) -> Iterator[Finding]:
        """Yield what the policy needs: what its adapter says, or else whether it can be made."""
        needs = [finding for entry in entry_points(group=NEEDS_GROUP) for finding in entry.load()(self.policy)]
        yield from needs
        if needs:
            return
        try:
            policy = registry.policy(self.policy)
        except VlaBenchError as caught:
            yield Finding("policy", False, str(caught), "see 'vla-bench list' and docs/bring-your-own.md")
        else:
            yield Finding("policy", True, f"{policy.name}, {policy.fingerprint}")

    def _disk(self) -> Finding:
        existing = next(path for path in (self.results, *self.results.absolute().parents) if path.exists())
        free_gb = shutil.disk_usage(existing).free / 1e9
        fine = free_gb > MIN_FREE_GB and os.access(existing, os.W_OK)
        advice = "make room, or choose another directory with --results"
        return Finding("results", fine, f"{self.results}, {free_gb:.0f} GB free", advice)
