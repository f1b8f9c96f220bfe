"""What waits for a GPU is one command with a deadline: parts are cut off, skipped and survived; times meet success."""

import json
import pkgutil
import sys
from importlib.metadata import PathDistribution, distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vla_bench import registry
from vla_bench_policies import methods

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MAIN = BENCHMARKS.parent / "results" / "released" / "main"


def script(name: str) -> Any:
    spec = spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


session, reference = script("gpu_session"), script("gpu_reference")
SHIPPED = {module.name.replace("_", "-") for module in pkgutil.iter_modules(methods.__path__)}


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_a_part_that_fails_or_takes_too_long_leaves_the_others_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 5.0)
    monkeypatch.setattr(session, "LEAST_S", 1.0)
    kept = tmp_path / "kept"
    late = f"import time\ntry: time.sleep(600)\nexcept KeyboardInterrupt: open({str(kept)!r}, 'w').close()"
    every = (
        session.Part("breaks", 1, python("raise SystemExit(3)")),
        session.Part("late", 8 / 60, python(late)),
        session.Part("fine", 1, python("pass")),
        session.Part("begun in vain", 0.0, python("pass")),
    )
    began = perf_counter()
    endings = session.do(every, 10, {}, tmp_path / "session.json")
    assert [ending.ended for ending in endings] == ["failed", "interrupted", "finished", "skipped"]
    assert endings[0].status == 3
    assert kept.exists()  # it was asked to stop, and had time to write what it had
    assert perf_counter() - began < 300
    written = json.loads((tmp_path / "session.json").read_text())
    assert [one["name"] for one in written] == ["breaks", "late", "fine", "begun in vain"]


def test_a_part_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 2.0)
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"
    ending = session.run(session.Part("deaf", 1, python(deaf)), 8.0, {})
    assert (ending.ended, ending.status) == ("interrupted", -9)


def test_all_parts_together_fit_into_the_minutes_that_are_promised() -> None:
    options = session.read_options([])
    assert options.minutes <= 25
    assert sum(part.minutes for part in session.parts(options)) <= options.minutes
    for part in session.parts(options):
        if "--minutes" in part.command:  # its own end comes before it would be interrupted
            own = float(part.command[part.command.index("--minutes") + 1])
            assert own < part.minutes - session.PATIENCE_S / 60


def test_what_is_missing_is_said_before_a_minute_is_spent(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no libero-object-fast; expected demonstrations: run 'make gpu-pack'"):
        session.main(["--pack", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no part named 'stepps'; known: steps, reference, train, gates"):
        session.main(["--part", "stepps"])


def test_a_machine_without_an_installation_finds_the_tree_and_the_names_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "is_installed", lambda environment: False)
    environment = session.environment_for(tmp_path / "pack", tmp_path)
    found = PathDistribution(next((tmp_path / "site").glob("*.dist-info")))
    assert {(one.group, one.name, one.value) for one in found.entry_points} == {
        (one.group, one.name, one.value) for one in distribution("vla-bench").entry_points
    }
    first, *trees = environment["PYTHONPATH"].split(":")
    assert first == str(tmp_path / "site")
    assert trees[:3] == [str(BENCHMARKS.parent / part).rstrip("/") for part in ("", "envs", "policies")]


def test_every_method_and_five_budgets_of_each_are_measured() -> None:
    specs = list(reference.methods())
    assert len(set(specs)) == len(specs)
    known = [registry.method(spec) for spec in specs]
    families = [name.partition(":")[0] for name in specs if "+" not in name]
    assert set(families) >= SHIPPED - {"refresh", "rotate", "still"}
    single = {"full", "full-eager", "vla-acl"}
    assert {name for name in families if families.count(name) < 5} == single
    assert len({one.name for one in known}) == len(known)


def test_times_meet_the_success_of_the_same_method_under_the_same_policy() -> None:
    names = ["full", "random:0.4", "random:0.9"]
    times = pd.DataFrame({"method": names, "policy_ms": [3.0, 2.0, 1.0]})
    table = reference.joined(times, [MAIN], "reference-oft:execute=2,ensemble").set_index("method")
    assert table.loc["full", ["episodes", "success"]].tolist() == [10, 1.0]
    assert table.loc["random:0.4", "success"] <= 0.3
    assert np.isnan(table.loc["random:0.9", "success"])  # measured, and played by nobody
    assert table["policy_ms"].tolist() == [3.0, 2.0, 1.0]
    with pytest.raises(SystemExit, match="expected 'reference-oft:execute=8' on one suite"):
        reference.joined(times, [MAIN], "reference-oft:execute=8")
    assert reference.joined(times, [], "")["success"].isna().all()
