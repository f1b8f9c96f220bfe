"""One sitting: robot, operator and page put together, and taken apart again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from vla_bench.errors import OptionError
from vla_bench_envs.robot.errors import ServerNeededError
from vla_bench_envs.robot.evaluation.desk import Desk
from vla_bench_envs.robot.evaluation.emergency import RemoteEmergency
from vla_bench_envs.robot.evaluation.errors import DryRunError, OperatorNeededError
from vla_bench_envs.robot.evaluation.folder import Folder
from vla_bench_envs.robot.evaluation.labelling import Rating
from vla_bench_envs.robot.evaluation.operators import AtPage, Simulator
from vla_bench_envs.robot.evaluation.page import OperatorPage
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.running import Ledger, play
from vla_bench_envs.robot.evaluation.scene import Starts
from vla_bench_envs.robot.evaluation.seal import Seal
from vla_bench_envs.robot.evaluation.watching import WatchedEnv
from vla_bench_envs.robot.suites import RobotSuite

Announce = Callable[[str], None]
"""Tell where the page is."""


@dataclass(frozen=True)
class Sitting:
    """What is played, and on which robot."""

    folder: Folder
    plan: EvaluationPlan
    seal: Seal
    url: str | None
    """Of the robot server; None is the simulated arm in lock-step."""

    limits_sha256: str | None = None

    @contextmanager
    def environment(self) -> Iterator[WatchedEnv]:
        """Open the robot.

        Raises:
            DryRunError: If nothing would move.
            ServerNeededError: If the suite is a physical arm's, and no server is named.
            OptionError: If the plan's suite is no arm's.
        """
        plan = self.plan.resolve()
        if not isinstance(plan.suite, RobotSuite):
            raise OptionError("suite", plan.suite.name, "a suite of an arm: 'tabletop-sim@1', or one of a robot file")
        if self.url is None and not plan.suite.simulated:
            raise ServerNeededError(plan.suite.name)
        env = WatchedEnv(self.url, plan.protocol, plan.suite, self.limits_sha256, Starts(self.folder.starts))
        try:
            if env.robot.session.link.welcome["dry_run"]:
                raise DryRunError(self.url or "")
            yield env
        finally:
            env.close()


def play_alone(sitting: Sitting) -> int:
    """Play a plan on a robot that places the objects and knows success; return how many trials are labelled.

    Raises:
        OperatorNeededError: If the robot cannot.
    """
    with ExitStack() as opened:
        env = opened.enter_context(sitting.environment())
        caps, robot = (env.robot.session.link.welcome[name] for name in ("caps", "robot"))
        for able, missing in (("places_objects", "place the objects"), ("knows_success", "tell success")):
            if not caps[able]:
                raise OperatorNeededError(robot["driver"], missing)
        if sitting.plan.milestones:
            raise OperatorNeededError(robot["driver"], "tell the milestones of this plan")
        recover = None
        if sitting.url is not None:
            emergency = RemoteEmergency(sitting.url)
            opened.callback(emergency.close)
            recover = emergency.recover
        ledger = opened.enter_context(Ledger(sitting.folder, sitting.plan, Simulator.rater))
        return play(sitting.folder, sitting.plan, sitting.seal, env, Simulator(recover), ledger)


def play_at_page(sitting: Sitting, rater: str, port: int, announce: Announce) -> int:
    """Play a plan with an operator at the page; return how many trials are labelled."""
    folder, plan = sitting.folder, sitting.plan
    with ExitStack() as opened:
        ledger = opened.enter_context(Ledger(folder, plan, rater))
        env = opened.enter_context(sitting.environment())
        stop, recover = env.stop, None
        if sitting.url is not None:
            emergency = RemoteEmergency(sitting.url)
            opened.callback(emergency.close)
            stop, recover = emergency.stop, emergency.recover
        desk = Desk(stop)
        operator = AtPage(desk, plan, rater, ledger.correct, recover)
        labels = folder.read_labels(plan, rater)
        if labels:
            last = max(labels.values(), key=lambda label: label.labelled)
            operator.last = last.trial, last.success
        page = opened.enter_context(OperatorPage(desk, port))
        announce(page.url)
        return play(folder, plan, sitting.seal, env, operator, ledger)


def rate_at_page(folder: Folder, plan: EvaluationPlan, rater: str, port: int, announce: Announce) -> int:
    """Have a rater label films at the page; return how many are labelled."""
    desk = Desk(lambda: None)
    rating = Rating(folder, plan, rater, desk)
    with OperatorPage(desk, port) as page:
        announce(page.url)
        return rating.rate()
