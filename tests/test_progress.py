"""A log gets lines, not a bar that is drawn over and over; a terminal gets the bar."""

import io
import time

import pytest

from vla_bench import progress
from vla_bench.progress import Progress


class Terminal(io.StringIO):
    """A stderr that says it is watched."""

    def isatty(self) -> bool:
        return True


def work(n: int, pause_s: float, **options: object) -> None:
    with Progress(total=n, unit="episode", **options) as bar:
        for index in range(n):
            time.sleep(pause_s)
            bar.set_postfix_str(f"held out {index}")
            bar.update()


def test_what_is_done_at_once_leaves_no_line_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    work(20, 0.0)
    assert log.getvalue() == ""


def test_a_log_gets_a_line_now_and_then_and_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.1)
    work(30, 0.02)
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert "\x1b" not in log.getvalue()
    assert 2 <= len(lines) <= 10, lines  # 0.6 s or more of work, a line every 0.1 s
    assert all("/30" in line and "episode" in line and "held out" in line for line in lines)
    assert "30/30" in lines[-1]


def test_two_bars_at_once_are_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.02)
    with Progress(total=2, desc="outer") as outer:
        for _ in range(2):
            work(5, 0.01)
            outer.update()
    assert all(line.strip() and "\x1b" not in line for line in log.getvalue().splitlines())
    assert "outer: 100% 2/2" in log.getvalue()


def test_a_terminal_gets_the_bar_and_nobody_who_asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    work(3, 0.0)
    assert "\r" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    silent = Terminal()
    monkeypatch.setattr("sys.stderr", silent)
    work(3, 0.0, show=False)
    assert silent.getvalue() == ""
