"""Who places the objects, watches a trial and says how it ended: the simulator, or a person at the page."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from vla_bench_envs.robot.errors import RobotRefusedError
from vla_bench_envs.robot.evaluation.desk import Desk, Press, Word
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan, Trial
from vla_bench_envs.robot.evaluation.scene import reset_score

Look = Callable[[], np.ndarray | None]
"""Return what the first camera sees now (height, width, 3) `uint8`; None without a camera."""

Correct = Callable[[str, Press], None]
"""Take back the label of a trial for another one."""

LOOK_S = 0.3
"""How often the scene is looked at while the operator places the objects."""


class Operator(Protocol):
    """Who decides what a robot cannot."""

    rater: str

    def prepare(self, trial: Trial, look: Look, reference: np.ndarray | None) -> None:
        """Return when the objects are in place and the trial may begin."""
        ...

    def watch(self, picture: np.ndarray) -> bool:
        """Take a picture of the trial; return whether it is to end now."""
        ...

    def label(self, trial: Trial, known: bool, failed: str = "") -> Press:
        """Return `success` or `failure`; `known` is what the robot says, if it can, `failed` why it stood still."""
        ...

    def told(self, trial: Trial, error: str) -> None:
        """Learn that a trial ended in an error and will be repeated; return when it may be."""
        ...

    def finish(self) -> None:
        """Learn that all trials are labelled; return when no label is taken back any more."""
        ...


class Simulator:
    """The robot places the objects and knows success: nobody is asked."""

    rater = "simulator"

    def __init__(self, recover: Callable[[], None] | None = None) -> None:
        """Stand at a simulated arm; `recover` ends FAULT and ESTOP, None where it ends them by itself."""
        self._recover = recover

    def prepare(self, trial: Trial, look: Look, reference: np.ndarray | None) -> None:
        """Return at once."""

    def watch(self, picture: np.ndarray) -> bool:
        """Let the trial go on."""
        return False

    def label(self, trial: Trial, known: bool, failed: str = "") -> Press:
        """Say what the task's predicate says; the note has the cause for which the robot stood still."""
        return Press("success" if known else "failure", failed)

    def told(self, trial: Trial, error: str) -> None:
        """Let it be repeated at once, after a reset if the robot needs one and there is a way to it."""
        if self._recover is not None:
            with suppress(RobotRefusedError):  # it needed none
                self._recover()

    def finish(self) -> None:
        """Return at once."""


class AtPage:
    """A person at the operator page, who is never told a method."""

    def __init__(
        self, desk: Desk, plan: EvaluationPlan, rater: str, correct: Correct, recover: Callable[[], None] | None = None
    ) -> None:
        """Sit down; `recover` ends FAULT and ESTOP, None where the page cannot."""
        self._desk, self.rater, self._correct, self._recover = desk, rater, correct, recover
        self._plan, self._tasks = plan, plan.resolve().suite.tasks()
        self._total = len(plan.trials())
        self._trial: Trial | None = None
        self.last: tuple[str, bool] | None = None
        """Trial and label that can be taken back."""

    def prepare(self, trial: Trial, look: Look, reference: np.ndarray | None) -> None:
        """Show the start over what the camera sees, until the operator starts."""
        self._trial = trial
        self._desk.picture("reference", reference)
        self._show_placing(reference)
        while True:
            press = self._desk.wait(LOOK_S)
            if press is not None and press.word == "start":
                self._show("playing", ("success", "failure"))
                return
            if press is not None:
                self._take_back()
                self._show_placing(reference)
            picture = look()
            if picture is not None:
                self._desk.picture("live", picture)
                if reference is not None:
                    self._desk.amend(score=round(reset_score(reference, picture), 3))

    def watch(self, picture: np.ndarray) -> bool:
        """Show the picture; end the trial when it is labelled."""
        self._desk.picture("live", picture)
        return self._desk.pressed() is not None

    def label(self, trial: Trial, known: bool, failed: str = "") -> Press:
        """Return the label that ended the trial, or ask for one."""
        why = {"message": f"The arm stood still by itself: {failed}."} if failed else {}
        verdict = self._desk.pressed() or self._asked("labelling", **why)
        self.last = trial.id, verdict.word == "success"
        self._show("homing")
        return verdict

    def told(self, trial: Trial, error: str) -> None:
        """Show the error until the operator lets the trial be repeated, after a reset if the robot needs one."""
        message = f"Not counted, to be repeated: {error}"
        while True:
            buttons: tuple[Word, ...] = ("start",) if self._recover is None else ("start", "recover")
            self._show("error", buttons, message=message)
            press = self._desk.wait()
            if press is None or press.word != "recover" or self._recover is None:
                self._show("homing")
                return
            try:
                self._recover()
                message = "The robot is reset. Start repeats the trial."
            except RobotRefusedError as caught:
                message = str(caught)

    def finish(self) -> None:
        """Offer to take the last label back, until the operator finishes."""
        self._trial = None
        while True:
            self._show("done", ("start", "undo") if self.last else ("start",))
            press = self._desk.wait()
            if press is not None and press.word == "start":
                self._show("closed")
                return
            self._take_back()

    def _take_back(self) -> None:
        if self.last is None:
            return
        trial, before = self.last
        verdict = self._asked("relabelling", trial=trial, message=f"It was a {'success' if before else 'failure'}.")
        self._correct(trial, verdict)
        self.last = trial, verdict.word == "success"

    def _asked(self, phase: str, **facts: Any) -> Press:
        self._show(phase, ("success", "failure"), **facts)
        press = self._desk.wait()
        assert press is not None  # without a timeout there is a press
        return press

    def _show_placing(self, reference: np.ndarray | None) -> None:
        buttons: tuple[Word, ...] = ("start", "undo") if self.last else ("start",)
        self._show("placing", buttons, reference=reference is not None)

    def _show(self, phase: str, buttons: tuple[Word, ...] = (), **facts: Any) -> None:
        shown: dict[str, Any] = {"total": self._total, "rubric": self._plan.rubric, "last": self.last, "mode": "run"}
        shown |= {"milestones": self._plan.milestones, "failures": self._plan.failures}
        if self._trial is not None:
            cell = self._trial.cell
            task = self._tasks[cell.task]
            shown |= {"trial": self._trial.id, "number": self._trial.number, "start": cell.init_state}
            shown |= {"instruction": task.instruction}
        self._desk.show(phase, buttons, **(shown | facts))
