"""Results that others can check: a pack of runs with its figures, and how it is verified.

| file | what it is |
| --- | --- |
| `layout.py` | which files a pack holds |
| `archive.py` | a pack as a zip: written alike every time, read without trust |
| `manifest.py` | what a pack says of itself |
| `shapes.py` | what kind of value stands where |
| `runs.py` | the runs of a pack |
| `episode_rules.py` | what every honest episode satisfies |
| `run_rules.py` | what the episodes of an honest run satisfy together |
| `order_rules.py` | in which order an honest run plays its plan |
| `claims.py` | the figures: computed, and compared with what is claimed |
| `packing.py` | from directories of runs to a pack |
| `examination.py` | all of the checks that need no playing; `opened` |
| `replay.py` | drawn episodes, played again |
| `verification.py` | both, and the receipt |
| `evidence.py` | what a receipt is worth |
| `command.py` | `vla-bench submit`, `vla-bench verify` |
"""

from vla_bench.submission.archive import PackError
from vla_bench.submission.evidence import Evidence, evidence_of
from vla_bench.submission.examination import examine, opened
from vla_bench.submission.manifest import Label
from vla_bench.submission.packing import submit
from vla_bench.submission.verification import verify

__all__ = ["Evidence", "Label", "PackError", "evidence_of", "examine", "opened", "submit", "verify"]
