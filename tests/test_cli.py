"""The command line parses, calls and prints; its exit status tells what happened."""

import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
from toy import TOY, ToySuite

import vla_bench
from vla_bench import cli, doctor, video
from vla_bench.film import Filming, moments

RUN = (
    "run",
    "--suite",
    "toy@1",
    "--policy",
    "toy:1",
    "--episodes",
    "2",
    "--method",
    "full",
    "--method",
    "action-reuse:2",
)


def test_a_run_ends_in_a_table_that_can_be_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main([*RUN, "--results", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "action-reuse:2" in table
    assert cli.main(["table", str(tmp_path)]) == 0
    assert capsys.readouterr().out == table
    assert (tmp_path / "summary.csv").exists()


def test_a_run_is_found_again_by_its_plan(tmp_path: Path) -> None:
    for _ in range(2):
        assert cli.main([*RUN, "--results", str(tmp_path)]) == 0
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_errors_make_the_exit_status_one_and_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    own = ToySuite("toy-failing@1", raises_at={(0, 1)})
    vla_bench.register("suite", own.name, own)
    words = ["run", "--suite", own.name, "--policy", "toy:1", "--episodes", "2", "--results", str(tmp_path)]
    assert cli.main(words) == 1
    assert "1 episodes ended in an error" in capsys.readouterr().out
    own.raises_at.clear()
    assert cli.main(words) == 0


@pytest.mark.parametrize("words", [["run", "--suite", "toi@1"], ["table", "nowhere"], ["check", "--method", "full"]])
def test_a_mistake_is_one_line_without_a_traceback(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("vla-bench: ")
    assert "Traceback" not in said


def test_list_names_suites_policies_and_methods(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["list"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("toy@1", "libero-goal@1", "expert", "action-reuse"))
    assert cli.main(["list", "toy@1"]) == 0
    assert TOY.tasks()[1].instruction in capsys.readouterr().out


def test_figures_are_written_in_every_format(tmp_path: Path) -> None:
    cli.main([*RUN, "--results", str(tmp_path), "--episodes", "6"])
    assert cli.main(["figure", str(tmp_path)]) == 0
    assert (tmp_path / "success_latency.png").stat().st_size > 1000
    assert (tmp_path / "success_latency.pdf").read_bytes().startswith(b"%PDF")


def test_check_names_the_contracts_that_are_kept(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["check", "--suite", "toy@1", "--policy", "toy:1", "--method", "action-reuse:2"]) == 0
    assert capsys.readouterr().out.count("keeps the contract") == 3


def test_a_film_shows_every_step_of_all_cameras(tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    assert cli.main(["film", "--suite", "toy@1", "--policy", "toy:1", "--protocol", "toy", "--out", str(out)]) == 0
    env = Filming(TOY.make(TOY.protocols()["toy"]), ("front", "wrist"))
    env.reset(options={"task": 0, "init_state": 0})
    assert video.decode(out).shape[1:] == env.frames[0].shape
    assert matplotlib.image.imread(out.with_suffix(".png")).shape[:2] == (2 * 8, 4 * 16)
    assert len(moments(video.decode(out)).shape) == 3


def test_doctor_says_what_to_do_about_what_is_not_fine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    assert doctor.Doctor().run() == 1
    said = capsys.readouterr().out
    assert "BAD  results" in said
    assert "-> make room" in said


@pytest.mark.sim
def test_the_harness_costs_less_than_two_milliseconds_a_step(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["floor", "--repeats", "5"]) == 0
    assert "harness cost" in capsys.readouterr().out


@pytest.mark.parametrize("suite", ["libero-90@1", "libero-goal@1"])  # more than a buffer, and less
def test_a_reader_that_has_seen_enough_is_no_error(suite: str) -> None:
    command = [sys.executable, "-m", "vla_bench.cli", "list", suite]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""
