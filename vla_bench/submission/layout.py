"""Which files a pack holds, and what each is."""

import re

from vla_bench import journal, provenance

MANIFEST = "manifest.json"
SUMMARY = "claims/summary.csv"
COMPARISON = "claims/comparison.csv"
RUN_FILES = (journal.NAME, provenance.NAME)

MEANINGS = {
    MANIFEST: "what this pack holds, with sizes and SHA-256",
    SUMMARY: "claim: what 'vla-bench table' computes from the records",
    COMPARISON: "claim: what 'vla-bench compare' computes from the records",
    journal.NAME: "records: one line an episode",
    provenance.NAME: "plan, conditions, code and machine of the run",
}

_RUN_FILE = re.compile(rf"runs/\w[\w.~-]*/({'|'.join(map(re.escape, RUN_FILES))})")


def meaning(name: str) -> str | None:
    """Return what the file of that name is; None if a pack holds no such file."""
    if matched := _RUN_FILE.fullmatch(name):
        return MEANINGS[matched[1]]
    return MEANINGS.get(name) if name in (MANIFEST, SUMMARY, COMPARISON) else None


def run_file(run: str, name: str) -> str:
    """Return the place of a run's file in a pack."""
    return f"runs/{run}/{name}"
