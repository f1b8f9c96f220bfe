"""`vla-bench submit` and `vla-bench verify`: results that others can check."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vla_bench.errors import OptionError
from vla_bench.submission.evidence import receipt_of
from vla_bench.submission.manifest import Label
from vla_bench.submission.packing import submit
from vla_bench.submission.verification import Verification, verify

MOST_SHOWN = 50
"""Lines of what was found that are printed; the receipt holds all."""


@dataclass(frozen=True)
class Submit:
    """Pack runs into one file that anybody can verify: records, provenance, and the figures that follow from them.

    The same runs and words make the same bytes. A run that is being played, or that 'vla-bench verify' would refuse, is
    not packed. Of files only the records and the provenance are taken: no weights, no code. Specifications of policies
    and methods stay as they were typed: the local paths in them are listed, as is code that was not committed.
    """

    out: Path
    """File to write; its name ends in .zip."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("results"),)
    """Directories of runs, or directories that hold several."""

    title: str = ""
    """What a leaderboard may call it."""

    contact: str = ""
    """Whom to ask."""

    notes: str = ""
    """Anything that a reader should know."""

    def run(self) -> int:
        """Write the pack, and say what is in it that a submitter may not expect."""
        if not self.results:
            raise OptionError("RESULTS", self.results, "at least one directory of results")
        made = submit(self.results, self.out, Label(self.title, self.contact, self.notes))
        print(_packed(self.out, made))
        return 0


@dataclass(frozen=True)
class Verify:
    """Check a pack: files by hash, records by rules that honest runs keep, every figure by computing it anew.

    With --replay, episodes drawn at random are played again with the installed suite, policy and method, and must end
    as recorded: outcome, steps, initial state, path, jerk, rows of tokens. Nothing of a pack is executed, but its
    specifications choose among what is installed here, with any arguments, such as a path: look at them before.

    What this shows: without a replay, that nobody changed the file carelessly and that its figures follow from its
    records. A forger who invents records that keep all rules, with hashes and figures to match, is caught by a replay
    only: of 30 drawn episodes, one in ten forged escapes with 4 %. Where this machine has other packages, another
    processor or other code, a difference may be honest, and is told and not held against the pack; where pictures or
    physics differ, nothing is played. Times are never compared in a replay, since they are another machine's: nobody
    can verify them from afar. Who makes a pack can change its notes until its hash draws what he likes: give a --seed.

    The receipt, NAME.zip.receipt.json, replaces an earlier one. It is a statement of whoever ran this, not a signature.

    Exit status: 0 when nothing is wrong, 1 when the pack is refused, with all that was found, 2 for a mistake in the
    command, 130 when interrupted.
    """

    pack: Annotated[Path, tyro.conf.Positional]
    """File that 'vla-bench submit' wrote."""

    replay: int = 0
    """Episodes to play again."""

    seed: int | None = None
    """Draws them; by default from the pack's hash, so that it does not have to be agreed upon."""

    def run(self) -> int:
        """Print what was checked and found, and write the receipt."""
        if self.replay < 0:
            raise OptionError("--replay", self.replay, "a number of episodes, or 0 for none")
        if self.seed is not None and self.seed < 0:
            raise OptionError("--seed", self.seed, "an integer of at least 0")
        done = verify(self.pack, self.replay, self.seed)
        print("\n".join(_verified(self.pack, done)))
        return 1 if done.found else 0


def _packed(out: Path, made: dict[str, Any]) -> str:
    lines = [f"{out}: {len(made['files'])} files, {len(made['runs'])} runs"]
    for name, run in made["runs"].items():
        if run["dirty"]:
            lines.append(f"{name}: made on uncommitted changes ({', '.join(run['commits'])}); the pack says so")
        lines += [f"{name}: the pack names the local path {path}" for path in run["local_paths"]]
    return "\n".join(lines)


def _verified(pack: Path, done: Verification) -> list[str]:
    lines = [f"{pack}: sha256 {done.examination.sha256}"]
    lines += [f"checked: {one}" for one in done.examination.checked]
    if done.replay is not None:
        lines.append(f"replayed with --seed {done.replay.seed}, times not compared:")
        for episode in done.replay.episodes:
            cell = f"task {episode['task']} state {episode['init_state']} seed {episode['seed']}"
            lines.append(f"  {episode['run']} {episode['method']} {cell}: {episode['result']}")
    lines += [f"note: {one}" for one in done.remarks]
    lines += [f"WRONG: {one}" for one in done.found[:MOST_SHOWN]]
    if len(done.found) > MOST_SHOWN:
        lines.append(f"and {len(done.found) - MOST_SHOWN} more, see the receipt")
    verdict = f"REFUSED, {len(done.found)} things are wrong" if done.found else f"evidence: {done.evidence}"
    return [*lines, verdict, f"receipt: {receipt_of(pack)}"]
