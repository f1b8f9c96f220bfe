"""Where the files of an evaluation lie; what does not match its plan is refused when it is read.

| file | what it is |
| --- | --- |
| `plan.json` | the plan and its hash |
| `seal.json` | which method is which; not to be opened before the report |
| `starts/` | reference image of each start |
| `blind/` | a run like every other, methods under aliases |
| `blind/trials/` | what the robot did |
| `films/` | pictures of each trial |
| `labels/RATER/` | what each rater said |
| `unsealed/` | the run with its methods' names: for `vla-bench table`, `compare`, `figure` |
| `report.md`, `report.csv`, `progress.csv`, `agreement.csv` | what was found |
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_bench import journal, provenance
from vla_bench.errors import ResultsWriteError
from vla_bench_envs.robot.evaluation.errors import PlanChangedError, PlanFolderError, RaterError, SealBrokenError
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.records import Label, TrialRecord
from vla_bench_envs.robot.evaluation.seal import Seal

EVALUATION = "evaluation"
"""Key of the plan's hash in a run's provenance."""


@dataclass(frozen=True)
class Folder:
    """The folder of one evaluation."""

    path: Path

    @property
    def blind(self) -> Path:
        """Return the run under aliases."""
        return self.path / "blind"

    @property
    def trials(self) -> Path:
        """Return the journal of trials."""
        return self.blind / "trials"

    @property
    def unsealed(self) -> Path:
        """Return the directory of the run under names."""
        return self.path / "unsealed"

    @property
    def films(self) -> Path:
        """Return the directory of films."""
        return self.path / "films"

    @property
    def starts(self) -> Path:
        """Return the directory of reference images."""
        return self.path / "starts"

    def labels(self, rater: str) -> Path:
        """Return the journal of a rater.

        Raises:
            RaterError: If the name is no name of a directory.
        """
        if not rater.replace("-", "").isalnum() or not rater.isascii():
            raise RaterError(rater, "has a name that is not of letters, digits and hyphens")
        return self.path / "labels" / rater

    def create(self, plan: EvaluationPlan, seal: Seal) -> None:
        """Write a plan and its seal; the seal is readable by its owner alone.

        Raises:
            PlanFolderError: If there is one already.
            ResultsWriteError: If they cannot be written.
        """
        if (self.path / "plan.json").exists():
            raise PlanFolderError(self.path, "holds a plan already")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(os.open(self.path / "seal.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
                json.dump(asdict(seal), stream)
        except OSError as caught:
            raise ResultsWriteError(self.path, caught) from caught
        provenance.write_json(self.path / "plan.json", {"sha256": plan.sha256, "plan": asdict(plan)})

    def plan(self) -> EvaluationPlan:
        """Return the plan.

        Raises:
            PlanFolderError: If there is none, or it is damaged.
            PlanChangedError: If it does not have the hash that it states.
        """
        found = self._read("plan.json")
        try:
            plan, stated = EvaluationPlan.from_dict(found["plan"]), str(found["sha256"])
        except (KeyError, TypeError) as caught:
            raise PlanFolderError(self.path, f"holds a plan.json that is none ({caught})") from caught
        if plan.sha256 != stated:
            raise PlanChangedError(self.path / "plan.json", plan.sha256, stated)
        return plan

    def seal(self, plan: EvaluationPlan) -> Seal:
        """Return the map of aliases to methods.

        Raises:
            PlanFolderError: If it is missing or damaged.
            SealBrokenError: If it is not the one that the plan commits to.
        """
        try:
            seal = Seal(**self._read("seal.json"))
        except TypeError as caught:
            raise PlanFolderError(self.path, f"holds a seal.json that is none ({caught})") from caught
        if seal.sha256 != plan.seal_sha256:
            raise SealBrokenError(self.path / "seal.json", seal.sha256, plan.seal_sha256)
        return seal

    def played(self, plan: EvaluationPlan) -> dict[str, Any] | None:
        """Return the provenance of what was played; None if nothing was.

        Raises:
            PlanChangedError: If another plan was.
        """
        found = provenance.read(self.blind)
        if found is not None:
            _check_plan(self.blind, plan, [str(found["plan"].get(EVALUATION, ""))])
        return found

    def read_trials(self, plan: EvaluationPlan) -> list[TrialRecord]:
        """Return what the robot did in every attempt.

        Raises:
            PlanChangedError: If an attempt is of another plan.
        """
        records = journal.read_as(TrialRecord.from_dict, self.trials)
        _check_plan(self.trials, plan, [record.plan_sha256 for record in records])
        return records

    def read_labels(self, plan: EvaluationPlan, rater: str) -> dict[str, Label]:
        """Return a rater's last label by trial, in the order in which trials were first labelled.

        Raises:
            PlanChangedError: If a label is of another plan.
        """
        labels = journal.read_as(Label.from_dict, self.labels(rater))
        _check_plan(self.labels(rater), plan, [label.plan_sha256 for label in labels])
        return {label.trial: label for label in journal.latest(labels)}

    def raters(self) -> list[str]:
        """Return who has labelled, the first one first."""
        journals = list(self.path.glob(f"labels/*/{journal.NAME}"))
        written = {path.parent.name: journal.read_as(Label.from_dict, path.parent) for path in journals}
        return sorted((name for name, labels in written.items() if labels), key=lambda name: written[name][0].labelled)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.path / name).read_text())
        except OSError as caught:
            raise PlanFolderError(self.path, f"holds no readable {name} ({caught.strerror})") from caught
        except ValueError as caught:
            raise PlanFolderError(self.path, f"holds a damaged {name} ({caught})") from caught
        if not isinstance(found, dict):
            raise PlanFolderError(self.path, f"holds a {name} that is no map")
        return found


def _check_plan(where: Path, plan: EvaluationPlan, found: Sequence[str]) -> None:
    for digest in found:
        if digest != plan.sha256:
            raise PlanChangedError(where, digest, plan.sha256)
