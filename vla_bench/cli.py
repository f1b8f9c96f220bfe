"""The command line: parse, call, print. Nothing is decided here."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, Union

import pandas as pd
import tyro

from vla_bench import doctor, film, floor, merge, planfile, registry, runner, tables
from vla_bench.cluster.options import FleetOptions
from vla_bench.compare import command as compare
from vla_bench.compare import forecast
from vla_bench.errors import OptionError, VlaBenchError
from vla_bench.figures import command as figure
from vla_bench.leaderboard import command as leaderboard
from vla_bench.parallel.crew import CrewOptions
from vla_bench.plan import RunPlan
from vla_bench.realtime import command as delay
from vla_bench.replay import command as replay
from vla_bench.submission import command as submission
from vla_bench.tables import command as table

RESULTS = Path("results")


class Command(Protocol):
    """A dataclass whose fields are options."""

    def run(self) -> int:
        """Do it and return the exit status."""
        ...


@dataclass(frozen=True)
class Run:
    """Play a plan: every method on the same starts, in turns; run it again to resume. Ends with the table.

    Exit status: 0 when every episode has an outcome, 1 when some ended in an error (they are retried when the same
    command is run again), 2 for a mistake in the command, 130 when interrupted.
    """

    plan: Annotated[RunPlan, tyro.conf.arg(name="")] = field(default_factory=RunPlan)
    """What to play."""

    plan_file: Annotated[str, tyro.conf.arg(name="plan")] = ""
    """Plan whose options are taken where none is given here: a TOML file, or a name that `vla-bench list` shows."""

    results: Path = RESULTS
    """Directory under which the run gets a directory of its own, named by the plan's hash."""

    workers: int = 1
    """Environments that play at once, each in a process; more than one needs --no-timed."""

    cluster: str = ""
    """Ray cluster whose nodes play, `auto` or an address: needs --no-timed, and vla-bench[ray] on all nodes; the
    journal is written here."""

    crews: int = FleetOptions.crews
    """Crews on the cluster, each of --workers environments, and with a policy of its own, on one node."""

    gpus: float = FleetOptions.gpus
    """GPUs of each crew on the cluster; a fraction lets crews share one."""

    shard: str = ""
    """Part of the plan to play here, `2/8`: every eighth start, under all methods; `vla-bench merge` puts parts
    together that machines without a common disk have played."""

    share: bool | None = None
    """Whether one process holds the policy and answers all workers in batches, in which rounding differs from one by
    one; by default if the policy can be shared. Otherwise every worker loads it."""

    watched: bool = False
    """Play in a process of its own even with one worker, timed or not: it is replaced when it hangs or crashes. Several
    workers always are."""

    stall_s: float = CrewOptions.stall_s
    """Seconds without a control step or an answer after which a worker or the policy counts as hung and is replaced."""

    def run(self) -> int:
        """Play what is missing, then print and write the summary."""
        plan = self.plan.resolve()
        if self.workers < 1 or self.stall_s <= 0:
            raise OptionError("--workers and --stall-s", (self.workers, self.stall_s), "positive numbers")
        directory = self.results / plan.id
        print(f"{plan.n_episodes} episodes of {plan.suite.name} ({plan.protocol}) in {directory}", file=sys.stderr)
        records = runner.run(plan, directory, crew=self._together(), shard=runner.shard_of(self.shard))
        print(table.written(tables.load(directory), directory / table.NAME))
        failed = [record for record in records if record.error]
        for record in failed[:5]:
            print(f"error: {record.method} task {record.cell.task} state {record.cell.init_state}: {record.error}")
        if failed:
            print(f"{len(failed)} episodes ended in an error and are in no rate; run the same command to retry them")
        return 1 if failed else 0

    def _together(self) -> runner.Together | None:
        """Return how several processes play; None for one."""
        if not self.cluster and (self.crews, self.gpus) != (FleetOptions.crews, FleetOptions.gpus):
            raise OptionError("--crews and --gpus", (self.crews, self.gpus), "left out without --cluster")
        if self.crews < 1 or self.gpus < 0:
            raise OptionError("--crews and --gpus", (self.crews, self.gpus), "at least 1, and at least 0")
        alone = self.workers == 1 and self.share is None
        crew = CrewOptions(self.workers, False if alone and self.watched else self.share, self.stall_s)
        if self.cluster:
            return FleetOptions(self.cluster, self.crews, self.gpus, crew)
        return None if self.workers == 1 and not self.watched else crew


@dataclass(frozen=True)
class List:
    """List the suites with their tasks and protocols, the policies and the methods."""

    suite: Annotated[str, tyro.conf.Positional] = ""
    """Show the tasks of this suite; by default all suites."""

    def run(self) -> int:
        """Print names that the other commands take."""
        if self.suite:
            suite = registry.suite(self.suite)
            for task in suite.tasks():
                print(f"{task.index:3d}  {task.instruction}")
            for name, protocol in suite.protocols().items():
                default = " (default)" if name == suite.default_protocol else ""
                size = protocol.image_size
                print(f"protocol {protocol}: {', '.join(protocol.cameras)}, {size} px, {protocol.render.name}{default}")
            return 0
        rows = [
            {
                "suite": suite.name,
                "tasks": len(suite.tasks()),
                "gymnasium": suite.gym_id,
                "protocol": suite.default_protocol,
            }
            for suite in registry.suites().values()
        ]
        print(pd.DataFrame(rows).to_string(index=False))
        print(f"policies: {', '.join(registry.names('policy'))}")
        print(f"methods:  {', '.join(registry.names('method'))}  (a:1+b:2 applies a, then b around it)")
        print(f"plans:    {', '.join(planfile.shipped()) or 'none'}  (vla-bench run --plan NAME)")
        return 0


@dataclass(frozen=True)
class Check:
    """Check that a suite's environment, a policy and a method keep the contracts of `vla_bench.testing`."""

    suite: str = "libero-object@1"
    """Suite whose environment is checked, and on which policy and method are tried."""

    policy: str = ""
    """Policy to check; none checks no policy."""

    method: str = ""
    """Method to check around the policy; needs --policy."""

    protocol: str = ""
    """Protocol of the suite; none means its default."""

    def run(self) -> int:
        """Run the contracts; the first broken one is the error."""
        from vla_bench import testing

        if self.method and not self.policy:
            raise OptionError("--method", self.method, "a --policy to apply it to, for example --policy expert")
        plan = RunPlan(suite=self.suite, protocol=self.protocol, policy=self.policy or "none", episodes=1).resolve()
        env = plan.suite.make(plan.protocol, images="eager")
        try:
            testing.check_environment(env)
            print(f"{plan.suite.name}: keeps the contract of an environment")
            if self.policy:
                testing.check_policy(registry.policy(self.policy), env, plan.tasks[0])
                print(f"{self.policy}: keeps the contract of a policy")
            if self.method:
                method = registry.method(self.method)
                testing.check_method(method, lambda: registry.policy(self.policy), env, plan.tasks[0])
                print(f"{self.method}: keeps the contract of a method")
        finally:
            env.close()
        return 0


COMMANDS: dict[str, type[Command]] = {
    "plan": forecast.Plan,
    "run": Run,
    "table": table.Table,
    "compare": compare.Compare,
    "delay": delay.Delay,
    "figure": figure.Figure,
    "leaderboard": leaderboard.Leaderboard,
    "merge": merge.Merge,
    "list": List,
    "check": Check,
    "doctor": doctor.Doctor,
    "film": film.Film,
    "floor": floor.Floor,
    "replay": replay.Replay,
    "submit": submission.Submit,
    "verify": submission.Verify,
}


SEVERAL_METHODS = ("plan", "run", "replay", "figure")
"""Commands that take `--method` again and again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        words = _gathered(planfile.expanded(words) if words[:1] == ["run"] else words)
        known = COMMANDS if words[:1] and words[0] in COMMANDS else COMMANDS | _grouped(registry.commands())
        command = tyro.extras.subcommand_cli_from_dict(
            known, args=words, prog="vla-bench", description=__doc__, config=(tyro.conf.OmitArgPrefixes,)
        )
        status = command.run()
        sys.stdout.flush()  # what is short would fail at the very end only, where nobody catches it
        return status
    except VlaBenchError as caught:
        print(f"vla-bench: {caught}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as of `vla-bench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("vla-bench: interrupted; what is finished is on disk, run the same command to go on", file=sys.stderr)
        return 130


def _grouped(commands: dict[str, type[Command]]) -> dict[str, Any]:
    """Return the commands with those named `group.name` under `group`: `vla-bench group name`."""
    groups: dict[str, list[Any]] = {}
    for name, command in sorted(commands.items()):
        group, _, member = name.partition(".")
        groups.setdefault(group, []).append(Annotated[command, tyro.conf.subcommand(member)] if member else command)
    return {group: Union[tuple(members)] for group, members in groups.items()}  # noqa: UP007


def _gathered(words: list[str]) -> list[str]:
    """Return the words with every `--method A` moved into one `--methods A B`."""
    methods, rest = [], []
    given = iter(words)
    for word in given:
        name, equals, value = word.partition("=")
        if name == "--method" and words[0] in SEVERAL_METHODS:
            methods.append(value if equals else next(given, ""))
        else:
            rest.append(word)
    return [*rest, "--methods", *methods] if methods else rest


if __name__ == "__main__":
    sys.exit(main())
