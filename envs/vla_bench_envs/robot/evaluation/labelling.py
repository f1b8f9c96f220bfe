"""Labels by a second rater, from films, in an order of their own and without sight of anybody's labels."""

import numpy as np

from vla_bench import journal
from vla_bench_envs.robot.evaluation import film
from vla_bench_envs.robot.evaluation.desk import Desk, Press, Word
from vla_bench_envs.robot.evaluation.errors import RaterError
from vla_bench_envs.robot.evaluation.folder import Folder
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.records import Label, TrialRecord

FRAME_S = 0.1
"""How long a picture of a film is shown: the control period at 10 Hz."""

LAST_S = 1.0
"""How long the last one is, before the film begins again."""


class Rating:
    """One rater's sitting: films one after the other, each until it is labelled."""

    def __init__(self, folder: Folder, plan: EvaluationPlan, rater: str, desk: Desk) -> None:
        """Sit down.

        Raises:
            RaterError: If the rater labelled while the trials were played.
        """
        if folder.raters()[:1] == [rater]:
            raise RaterError(rater, "labelled while the trials were played, and would agree with themselves")
        self._folder, self._plan, self._rater, self._desk = folder, plan, rater, desk
        self._tasks = plan.resolve().suite.tasks()
        counted = [one for one in journal.latest(folder.read_trials(plan)) if not one.is_broken]
        self._films = {record.trial: record for record in counted}
        self._done = list(folder.read_labels(plan, rater))

    def rate(self) -> int:
        """Show every film that this rater has not labelled; return how many are labelled."""
        with journal.writing(self._folder.labels(self._rater)) as labels:
            while todo := [trial for trial in self._order() if trial not in self._done]:
                if self._label(labels, todo[0]):
                    self._done.append(todo[0])
                else:  # the last label is taken back
                    self._label(labels, self._done[-1], corrected=True)
            while self._wait_at_the_end().word == "undo":
                self._label(labels, self._done[-1], corrected=True)
        self._desk.show("closed", mode="label")
        return len(self._done)

    def _order(self) -> list[str]:
        """Return the trials in this rater's order, which is not the one in which they were played."""
        seed = [int(self._plan.sha256[:16], 16), *self._rater.encode()]
        trials = sorted(self._films)
        return [trials[index] for index in np.random.default_rng(seed).permutation(len(trials))]

    def _label(self, labels: journal.Journal, trial: str, corrected: bool = False) -> bool:
        """Play a film until it is labelled; return False if the label before is taken back instead."""
        verdict = self._verdict(self._films[trial], may_undo=bool(self._done) and not corrected)
        if verdict.word == "undo":
            return False
        labels.append(Label.of(trial, verdict, self._rater, self._plan, corrected))
        return True

    def _verdict(self, record: TrialRecord, may_undo: bool) -> Press:
        pictures = film.read_jpegs(self._folder.films / record.film)
        while True:
            self._show(record, may_undo)
            for picture in pictures:
                self._desk.picture("live", picture)
                if self._desk.wait(FRAME_S):
                    break
            press = self._desk.wait(LAST_S)
            if press is not None and press.word != "start":
                return press

    def _show(self, record: TrialRecord, may_undo: bool) -> None:
        buttons: tuple[Word, ...] = ("success", "failure", "start", *(("undo",) if may_undo else ()))
        shown = {"trial": record.trial, "instruction": self._tasks[record.cell.task].instruction}
        self._desk.show("rating", buttons, number=len(self._done) + 1, **shown, **self._facts())

    def _wait_at_the_end(self) -> Press:
        self._desk.show("done", ("start", "undo"), number=len(self._done), **self._facts())
        press = self._desk.wait()
        assert press is not None  # without a timeout there is a press
        return press

    def _facts(self) -> dict[str, object]:
        asked: dict[str, object] = {"milestones": self._plan.milestones, "failures": self._plan.failures}
        return {"mode": "label", "total": len(self._films), "rubric": self._plan.rubric} | asked
