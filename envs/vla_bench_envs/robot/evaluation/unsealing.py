"""Blind records with their methods' names: a run like every other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from vla_bench import journal, provenance, registry
from vla_bench.errors import ResultsWriteError
from vla_bench.types import EpisodeRecord
from vla_bench_envs.robot.evaluation.errors import PlanFolderError
from vla_bench_envs.robot.evaluation.folder import EVALUATION, Folder
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.seal import Seal


def unseal(folder: Folder, plan: EvaluationPlan, seal: Seal) -> Path:
    """Write the run under its methods' names, in place of an earlier one, and return its directory.

    Raises:
        PlanFolderError: If nothing was played.
        PlanChangedError: If another plan was.
        ResultsWriteError: If it cannot be written.
    """
    found = folder.played(plan)
    if found is None:
        raise PlanFolderError(folder.path, "holds no trial yet ('vla-bench robot run' plays them)")
    resolved = plan.resolve()
    directory = folder.unsealed / resolved.id
    try:
        shutil.rmtree(folder.unsealed, ignore_errors=True)
        directory.mkdir(parents=True)
    except OSError as caught:
        raise ResultsWriteError(directory, caught) from caught
    content = resolved.to_dict() | {EVALUATION: plan.sha256}
    provenance.write_json(directory / provenance.NAME, found | {"plan": content})
    lines = [json.dumps(_named(record, seal).to_dict()) for record in journal.read(folder.blind)]
    (directory / journal.NAME).write_text("".join(f"{line}\n" for line in lines))
    return directory


def _named(record: EpisodeRecord, seal: Seal) -> EpisodeRecord:
    spec = seal.methods[record.method]
    return replace(record, method=spec, division=str(registry.division(registry.method(spec))))
