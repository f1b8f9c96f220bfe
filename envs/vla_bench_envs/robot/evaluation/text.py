"""The report as a person reads it, in Markdown; and the files of a report."""

import pandas as pd

from vla_bench import provenance
from vla_bench.compare import text as comparison
from vla_bench.compare.verdict import MIN_PAIRS
from vla_bench.errors import ResultsWriteError
from vla_bench.tables import bracketed, interval_columns, write
from vla_bench_envs.robot.evaluation.drift import Drift
from vla_bench_envs.robot.evaluation.folder import Folder
from vla_bench_envs.robot.evaluation.report import SHOWN, Findings

NOTES = f"""\
Success: share of counted trials, with Wilson 95 % limits; exact limits: Clopper and Pearson's. Difference: percentage
points against the reference on the same starts, with Tango 95 % limits. Non-inferior: the one-sided 95 % limit lies
above minus the margin; inferior: the other one lies below it; open: neither, or fewer than {MIN_PAIRS} pairs. p:
McNemar, exact and mid-p. Repetitions of a start are pairs of their own, though they resemble each other.

Drift: successes in each quarter of the trials as they were played, and the trend within task and method (Mantel 1963).
Methods take turns in random order within each start, so a drift adds noise to a difference, and no lean to either side.

Sensor to action: from the capture of an observation to the tick that applies the action answering it, on the server's
clock; the first action of each chunk, without a trial's first query and a process's warm-up; p95 from 60, p99 from 300
values on. Starved: time without a fresh action, in which the arm brakes. Clamped, rejected: control steps whose action
the gate changed or refused. Faults: phases HOLD, FAULT and ESTOP that attempts ran into, counted attempts and others.
Ended by one: counted trials in which the method itself brought one about, failures.
Reset score: similarity of the first picture to the start's reference where they differ most, 1 if nowhere.
"""


def write_report(folder: Folder, found: Findings) -> str:
    """Write report.md, report.csv, progress.csv and, with a second rater, agreement.csv; return the first.

    Raises:
        ResultsWriteError: If they cannot be written.
    """
    said = markdown(found)
    try:
        (folder.path / "report.md").write_text(said)
    except OSError as caught:
        raise ResultsWriteError(folder.path / "report.md", caught) from caught
    write(found.methods, folder.path / "report.csv")
    write(found.progress, folder.path / "progress.csv")
    if found.agreements:
        write(_agreements(found), folder.path / "agreement.csv")
    return said


def markdown(found: Findings) -> str:
    """Return the report."""
    plan, n_trials = found.plan, len(found.plan.trials())
    partial = "" if found.n_labelled == n_trials else f" **Partial: {n_trials - found.n_labelled} trials given up.**"
    n_blocks = len(plan.tasks) * plan.starts * plan.repetitions
    parts = [
        f"# Evaluation of {plan.policy} on {plan.suite}",
        f"{found.n_labelled} of {n_trials} trials: {n_blocks} blocks of {len(plan.methods)} methods in random order "
        f"(tasks: {len(plan.tasks)}, starts of each: {plan.starts}, repetitions: {plan.repetitions}).{partial} Margin "
        f"{100 * plan.margin:g} points against {plan.reference}.",
        f"Plan `{plan.sha256}`, seal `{plan.seal_sha256}`: both match.",
        "## Success",
        _table(_success(found.methods)),
        _drift(found.drift),
        *_progress(found.progress),
        "## What the robot did",
        _table(_robot(found.methods)),
        *_conditions(found),
        "## Raters",
        *_raters(found),
        "## Rules",
        f"Rubric: {plan.rubric}",
        f"Excluded: {plan.exclusion}",
        NOTES.strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _success(methods: pd.DataFrame) -> pd.DataFrame:
    shown = comparison.shown(methods)
    return pd.DataFrame(
        {
            "method": methods["method"],
            "trials": methods["episodes"],
            "success": bracketed(methods, "success", "{:.2f}"),
            "exact limits": [
                f"[{_number(low, '{:.2f}')}, {_number(high, '{:.2f}')}]"
                for low, high in methods[["success_exact_low", "success_exact_high"]].to_numpy()
            ],
            "difference": shown["difference"],
            "gained, lost": shown["+"] + ", " + shown["-"],
            "exact p": [_number(p, "{:.4f}") for p in methods["p_exact"]],
            "mid-p": shown["p"],
            "one-sided limit": [_number(100 * value, "{:+.1f}") for value in methods["one_sided_low"]],
            "success shows": methods["success_shows"].fillna("reference"),
            "speed-up": shown["speed-up"],
            "verdict": shown["verdict"],
        }
    )


def _drift(found: Drift) -> str:
    quarters = ", ".join(f"{n} of {of}" for n, of in found.quarters)
    trend = f"{100 * found.per_100_trials:+.1f} points per 100 trials (p = {found.p:.3f})"
    return f"Drift, by quarters of the trials: {quarters}; {'no trend to test' if pd.isna(found.p) else trend}."


def _progress(found: pd.DataFrame) -> list[str]:
    """Return milestones and failure codes, if raters gave any."""
    if found.empty:
        return []
    shown = pd.DataFrame(
        {
            "method": found["method"],
            "": found["kind"],
            "which": found["name"],
            "trials": [f"{n} of {of}" for n, of in found[["n", "of"]].to_numpy()],
            "share": bracketed(found, "share", "{:.2f}"),
        }
    )
    return ["## Milestones and failures", _table(shown), "Of all trials, and of failures; exact 95 % limits."]


def _robot(methods: pd.DataFrame) -> pd.DataFrame:
    starved = methods[["starved_ms", "starvations"]].to_numpy()
    return pd.DataFrame(
        {
            "method": methods["method"],
            "control steps": methods["control_steps"],
            **{
                f"sensor to action p{p} [ms]": [_number(ms, "{:.1f}") for ms in methods[f"sensor_to_action_ms_p{p}"]]
                for p in SHOWN
            },
            "of": methods["fresh_actions"],
            "starved [s]": [f"{ms * 1e-3:.2f} ({n:.0f}x)" for ms, n in starved],
            "clamped": methods["clamped"],
            "rejected": methods["rejected"],
            "faults": methods["faults"],
            "ended by one": methods["ended_by_fault"],
            "not counted": methods["uncounted_attempts"],
            "reset score, median": [_number(score, "{:.3f}") for score in methods["reset_score_median"]],
            "least": [_number(score, "{:.3f}") for score in methods["reset_score_least"]],
        }
    )


def _conditions(found: Findings) -> list[str]:
    """Return what was not counted, and the machine and robot that all of it holds for."""
    before = provenance.read(found.run) or {"conditions": {}}
    where = "; ".join(f"{name} {value}" for name, value in before["conditions"].items() if value)
    errors = [f"- {error}" for error in found.errors]
    remarks = ["Not counted, and played again:", "\n".join(errors)] if errors else []
    if "sim-lockstep" in before["conditions"].get("environment robot", ""):
        remarks.append("In lock-step, on a virtual clock: times of the robot hold no policy and no link.")
    return [*remarks, f"Conditions: {where}."]


def _raters(found: Findings) -> list[str]:
    corrected = f"{found.n_corrected} labels were taken back for others."
    if not found.agreements:
        return [f"One rater; agreement is not known. {corrected}"]
    rows = _agreements(found)
    shown = pd.DataFrame(
        {
            "first": rows["first"],
            "second": rows["second"],
            "trials": rows["trials"],
            "agreed": bracketed(rows, "agreed", "{:.2f}"),
            "Cohen's kappa": bracketed(rows, "kappa", "{:.2f}"),
        }
    )
    return [_table(shown), f"{corrected} Without a kappa both call all trials the same: nothing is beyond chance."]


def _agreements(found: Findings) -> pd.DataFrame:
    """Return one row a second rater."""
    rows = [
        {"first": first, "second": other, "trials": one.n}
        | {"both_success": one.n_both, "both_failure": one.n_neither}
        | interval_columns("agreed", one.agreed)
        | interval_columns("kappa", one.kappa)
        for (first, other), one in found.agreements.items()
    ]
    return pd.DataFrame(rows)


def _number(value: float, form: str) -> str:
    return "-" if pd.isna(value) else form.format(value)


def _table(frame: pd.DataFrame) -> str:
    return frame.to_markdown(index=False, disable_numparse=True)
