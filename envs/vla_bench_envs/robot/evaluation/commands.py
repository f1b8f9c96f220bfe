"""The command line of an evaluation: `vla-bench robot plan|run|label|report`."""

import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from vla_bench.compare.command import fraction_of
from vla_bench.compare.power import non_inferiority_power
from vla_bench.tables import REFERENCE_METHOD
from vla_bench_envs.robot import installation
from vla_bench_envs.robot.evaluation.folder import Folder
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.seal import Seal

PAGE_PORT = 8770

DISCORDANT = 0.1
"""Share of pairs on which two methods of equal success disagree, for a word on power before anything is played."""


@dataclass(frozen=True)
class Plan:
    """Decide an evaluation before it starts: what is played, in which random order, and which method hides where.

    Prints the plan's hash: register it where nobody can change it. The plan is not changed once it is made.
    """

    out: Path
    """Folder of the evaluation; one plan each."""

    policy: str
    """Policy that is accelerated, as `name` or `name:argument,key=value`."""

    methods: tuple[str, ...]
    """Methods to compare, the reference among them."""

    robot: Path | None = None
    """Robot file of the arm, which names the suite; none is the simulated arm as it is installed."""

    suite: str = "tabletop-sim@1"
    """Suite of tasks, with its version, where there is no robot file."""

    protocol: str = ""
    """Preset of the suite; none means the suite's default."""

    tasks: tuple[int, ...] = ()
    """Indices of the tasks in the suite's standard order, played one after the other; none means all."""

    starts: int = 10
    """Initial conditions of each task: the suite's first ones."""

    repetitions: int = 1
    """How often each start is played by each method."""

    reference: str = REFERENCE_METHOD
    """Method that every other one is compared with."""

    margin: float = 10.0
    """Success [percentage points] that a method may lose and still be non-inferior."""

    seed: int = 0
    """Of the policy, of the order of starts, and of the order of methods within a block."""

    rubric: str = "The task is done at the end of the trial, without help."
    """When a trial is a success, as raters read it."""

    exclusion: str = (
        "The robot, the link or the policy raised an error, or somebody stopped the robot. A method that drives the "
        "arm into a fault, or into a hold by refused actions, has failed: such a trial counts."
    )
    """When a trial is not counted and played again."""

    milestones: tuple[str, ...] = ()
    """Parts of a task, in their order, that raters tick as they are reached."""

    failures: tuple[str, ...] = ("not reached", "not grasped", "dropped", "wrong object", "collision", "other")
    """Codes of which raters may give one to a failure."""

    def run(self) -> int:
        """Write the plan and its seal."""
        margin = fraction_of("--margin", self.margin)
        facts = installation.load(self.robot).facts if self.robot else None
        plan = EvaluationPlan(
            suite=facts["suite"] if facts else self.suite,
            protocol=self.protocol,
            policy=self.policy,
            methods=self.methods,
            reference=self.reference,
            tasks=self.tasks,
            starts=self.starts,
            repetitions=self.repetitions,
            margin=margin,
            seed=self.seed,
            rubric=self.rubric,
            exclusion=self.exclusion,
            seal_sha256="",
            milestones=self.milestones,
            failures=self.failures,
            robot=facts,
        )
        resolved = plan.resolve()
        seal = Seal.of(resolved.methods, secrets.token_hex(16))
        plan = replace(
            plan,
            protocol=resolved.protocol.name,
            methods=resolved.methods,
            tasks=tuple(task.index for task in resolved.tasks),
            seal_sha256=seal.sha256,
        )
        Folder(self.out).create(plan, seal)
        print(f"{len(plan.trials())} trials in {self.out}; plan {plan.sha256}")
        n_pairs = len(plan.tasks) * plan.starts * plan.repetitions
        power = non_inferiority_power(n_pairs, 0.0, DISCORDANT, margin)
        print(
            f"{n_pairs} pairs a method: if it is as good as {plan.reference} and they disagree on {DISCORDANT:.0%} of "
            f"starts, {power:.0%} is the chance to show that it loses at most {self.margin:g} points"
        )
        return 0


@dataclass(frozen=True)
class Run:
    """Play a plan on a robot, or on the simulated arm; run it again to go on.

    Without --auto a page is served on this computer, where the operator places the objects over the start's image,
    starts, stops and labels each trial, and is not told its method.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the evaluation."""

    url: str = ""
    """Of the robot server; none is the simulated arm in lock-step, in this process."""

    auto: bool = False
    """Ask nobody: the robot places the objects and knows success, as a simulated one does."""

    rater: str = "operator"
    """Name of who labels at the page."""

    limits_sha256: str = ""
    """Limits that the robot server must have; none takes any."""

    page_port: int = PAGE_PORT
    """Port of the page; 0 takes a free one."""

    def run(self) -> int:
        """Play what is missing."""
        from vla_bench_envs.robot.evaluation.sitting import Sitting, play_alone, play_at_page

        folder = Folder(self.folder)
        plan = folder.plan()
        sitting = Sitting(folder, plan, folder.seal(plan), self.url or None, self.limits_sha256 or None)
        done = play_alone(sitting) if self.auto else play_at_page(sitting, self.rater, self.page_port, _announce)
        print(f"{done} of {len(plan.trials())} trials are labelled; 'vla-bench robot report {self.folder}' unseals")
        return 0


@dataclass(frozen=True)
class Label:
    """Label the films of an evaluation as a second rater, in another order and without sight of the first labels."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the evaluation."""

    rater: str = "second"
    """Name of who labels."""

    page_port: int = PAGE_PORT
    """Port of the page; 0 takes a free one."""

    def run(self) -> int:
        """Serve the page until all films are labelled."""
        from vla_bench_envs.robot.evaluation.sitting import rate_at_page

        folder = Folder(self.folder)
        done = rate_at_page(folder, folder.plan(), self.rater, self.page_port, _announce)
        print(f"{done} films are labelled by {self.rater}")
        return 0


@dataclass(frozen=True)
class Report:
    """Unseal an evaluation: success, differences, what the robot did, and how far raters agree.

    Writes report.md, report.csv and agreement.csv, and the run under its methods' names in FOLDER/unsealed, for
    `vla-bench table`, `compare` and `figure`. Refuses a plan or a seal that was changed.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the evaluation."""

    plan_sha256: str = ""
    """Hash, or the beginning of it, under which the plan was registered."""

    partial: bool = False
    """Give up the trials that are missing; the report says so."""

    def run(self) -> int:
        """Print and write the report."""
        from vla_bench_envs.robot.evaluation.report import find
        from vla_bench_envs.robot.evaluation.text import write_report

        folder = Folder(self.folder)
        found = find(folder, self.plan_sha256, self.partial)
        print(write_report(folder, found))
        print(f"the run under its methods' names: {found.run}", file=sys.stderr)
        return 0


def _announce(url: str) -> None:
    print(f"operator page: {url}", flush=True)
