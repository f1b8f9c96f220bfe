"""The operator page, in a browser: by mouse and keyboard, without a method's name, without a network; and its desk."""

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from robot_servers import Server
from test_leaderboard_browser import browser  # noqa: F401 - a fixture
from test_robot_evaluation import PLAN, Still, made
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from vla_bench import journal, registry
from vla_bench.errors import OptionError
from vla_bench_envs.robot.errors import RobotLinkError, RobotRefusedError
from vla_bench_envs.robot.evaluation import film, labelling
from vla_bench_envs.robot.evaluation.desk import Desk, Press
from vla_bench_envs.robot.evaluation.errors import RaterError
from vla_bench_envs.robot.evaluation.labelling import Rating
from vla_bench_envs.robot.evaluation.operators import AtPage
from vla_bench_envs.robot.evaluation.page import OperatorPage, page
from vla_bench_envs.robot.evaluation.records import Label, TrialRecord
from vla_bench_envs.robot.evaluation.sitting import Sitting, play_at_page

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

SCENE = np.full((64, 64, 3), 120, np.uint8)
DETAILED = replace(PLAN, milestones=("grasped", "lifted"), failures=("dropped", "collision"))
MOVED = SCENE.copy()
MOVED[20:30, 20:30] = (200, 20, 20)


# ----------------------------------------------------------------------------------------------------------- a desk


def test_a_button_counts_once_and_only_in_the_view_in_which_it_was_seen() -> None:
    desk = Desk(lambda: None)
    desk.show("labelling", ("success", "failure"))
    number = desk.view().number
    for word, view in (("start", number), ("success", number - 1), ("estop!", number)):
        desk.press(word, view)
        assert desk.pressed() is None
    desk.press("failure", number, "it slipped")
    desk.press("success", number)
    assert desk.wait() == Press("failure", "it slipped")
    assert desk.view().facts["buttons"] == []
    desk.show("placing", ("start",))
    assert desk.wait(timeout_s=0.01) is None


def test_milestones_and_a_code_come_with_a_label_and_only_those_that_were_shown() -> None:
    desk = Desk(lambda: None)
    desk.show("labelling", ("success", "failure"), milestones=("grasped", "lifted"), failures=("dropped",))
    desk.press("failure", desk.view().number, "", ["lifted", "flown", "grasped"], "dropped")
    assert desk.wait() == Press("failure", "", ("grasped", "lifted"), "dropped")
    desk.show("labelling", ("success", "failure"))
    desk.press("failure", desk.view().number, "", ["lifted"], "dropped")
    assert desk.wait() == Press("failure")


def test_a_stop_needs_no_button_and_no_view() -> None:
    stops: list[int] = []
    desk = Desk(lambda: stops.append(1))
    desk.press("estop", -5)
    assert stops == [1]
    assert desk.view().facts["alarm"] == "Stop was pressed. Look at the robot."


def test_only_the_page_itself_may_talk_to_its_server() -> None:
    with OperatorPage(Desk(lambda: None)) as served:
        url = served.url.replace("http", "ws")
        with connect(url, origin=served.url) as own:  # type: ignore[arg-type]
            assert '"phase": "waiting"' in str(own.recv(timeout=5))
        for origin in ("http://127.0.0.1:1", "http://example.org", None):
            with pytest.raises(InvalidStatus, match="403"):
                connect(url, origin=origin)  # type: ignore[arg-type]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{served.url}/seal.json")
        with pytest.raises(OptionError, match=r"^--page-port is \d+; expected a port that is free"):
            OperatorPage(Desk(lambda: None), int(served.url.rpartition(":")[2]))


def test_the_page_is_one_file_that_needs_no_other() -> None:
    found = page()
    assert "{{" not in found
    assert not re.search(r"https?://|@import|<script src|<link rel=.stylesheet", found)
    assert len(re.findall(r"<script>", found)) == 1


# -------------------------------------------------------------------------------------------------------- a sitting


@dataclass
class Sat:
    """An operator at a page, three trials that nothing but pictures is played of, and what was written."""

    desk: Desk
    url: str
    labels: list[tuple[str, str, str]] = field(default_factory=list)
    details: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    operator: AtPage | None = None
    n_errors: int = 0

    def play(self) -> None:
        assert self.operator is not None
        for trial in PLAN.trials()[:3]:
            self.operator.prepare(trial, lambda: MOVED, SCENE)
            while self.n_errors:
                self.n_errors -= 1
                self.operator.told(trial, "RobotRefusedError: it was stopped")
            for _ in range(200):
                if self.operator.watch(MOVED):
                    break
                time.sleep(0.02)
            verdict = self.operator.label(trial, known=False)
            self.labels.append((trial.id, verdict.word, verdict.note))
            self.details.append((verdict.milestones, verdict.failure))
        self.operator.finish()


@pytest.fixture
def sat() -> Iterator[Sat]:
    stops: list[str] = []
    desk = Desk(lambda: stops.append("stop"))
    with OperatorPage(desk) as served:
        one = Sat(desk, served.url, stops=stops)

        def correct(trial: str, press: Press) -> None:
            one.labels.append((trial, press.word, "corrected"))

        one.operator = AtPage(desk, DETAILED, "operator", correct, lambda: stops.append("recover"))
        yield one


@dataclass
class Visit:
    """A tab at the page, and what it did that it should not have."""

    tab: "Page"
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)

    def phase(self, words: str) -> None:
        """Wait until the page says what is going on."""
        self.tab.get_by_role("status").filter(has_text=words).wait_for(timeout=20_000)

    def click(self, name: str) -> None:
        self.tab.get_by_role("button", name=name).click()

    def trial(self) -> str:
        return self.tab.locator("#trial").inner_text()


@pytest.fixture
def visit(browser: "BrowserContext", sat: Sat) -> Iterator[Visit]:  # noqa: F811
    opened = Visit(browser.new_page())
    tab = opened.tab
    tab.set_viewport_size({"width": 1280, "height": 860})
    tab.on("console", lambda message: opened.said.append(message.text))
    tab.on("pageerror", lambda error: opened.said.append(str(error)))
    tab.on("request", lambda request: opened.requests.append(request.url))
    tab.on("websocket", lambda ws: ws.on("framereceived", lambda data: opened.frames.append(str(data))))
    tab.goto(sat.url)
    threading.Thread(target=sat.play, daemon=True).start()
    yield opened
    tab.close()
    assert opened.said == []
    assert {url for url in opened.requests if not url.startswith(("blob:", "data:"))} == {f"{sat.url}/"}


PLACING, PLAYING, LABELLING = "Place the objects", "The robot moves", "The trial is over"


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert holds()


def test_a_session_by_mouse_with_a_label_taken_back_and_no_word_of_a_method(visit: Visit, sat: Sat) -> None:
    one, two, three = (trial.id for trial in PLAN.trials()[:3])
    visit.phase(PLACING)
    assert (visit.trial(), visit.tab.locator("#count").inner_text()) == (one, "trial 1 of 4")
    visit.tab.locator("#live").wait_for()
    visit.tab.locator("#reference").wait_for()
    visit.tab.get_by_text(re.compile(r"Reset score 0\.\d{3}")).wait_for()
    assert visit.tab.get_by_role("button", name="Success").is_disabled()
    visit.click("Start")
    visit.phase(PLAYING)
    visit.tab.locator("#reference").wait_for(state="hidden")
    visit.tab.get_by_label("Note").fill("lifted by the cap")
    visit.click("Success")
    until(lambda: visit.trial() == two)
    visit.click("Undo")
    visit.phase("taken back")
    assert visit.trial() == one
    visit.click("Failure")
    visit.phase(PLACING)
    assert visit.trial() == two
    assert visit.tab.locator("#last").inner_text() == f"Last label: {one} failure"
    visit.click("Start")
    visit.phase(LABELLING)  # the horizon passed
    visit.click("Failure")
    until(lambda: visit.trial() == three)
    visit.click("Start")
    visit.phase(PLAYING)
    visit.click("Success")
    visit.phase("All trials are labelled")
    visit.click("Finish")
    visit.phase("Finished")
    taken_back = [(one, "success", "lifted by the cap"), (one, "failure", "corrected")]
    assert sat.labels == [*taken_back, (two, "failure", ""), (three, "success", "")]
    told = visit.tab.content() + "".join(visit.frames)
    for name in (*PLAN.methods, "sealed-", PLAN.policy):
        assert name not in re.sub(r"<script>.*?</script>|<style>.*?</style>", "", told, flags=re.DOTALL)


def test_a_session_by_keyboard_in_which_a_note_is_only_a_note(visit: Visit, sat: Sat) -> None:
    one, two = (trial.id for trial in PLAN.trials()[:2])
    keys = visit.tab.keyboard
    visit.phase(PLACING)
    keys.press("y")  # nothing to label yet
    keys.press("s")
    visit.phase(PLAYING)
    visit.tab.get_by_label("Note").focus()
    keys.type("nudged")
    assert sat.labels == []
    visit.tab.get_by_label("Note").blur()
    keys.press("n")
    until(lambda: visit.trial() == two)
    keys.press("u")
    visit.phase("taken back")
    keys.press("Y")
    visit.phase(PLACING)
    assert sat.labels == [(one, "failure", "nudged"), (one, "success", "corrected")]
    visit.tab.get_by_label("Keyboard shortcuts").uncheck()
    keys.press("s")
    visit.tab.wait_for_timeout(200)
    visit.phase(PLACING)


def test_milestones_and_why_a_trial_failed_are_one_key_or_one_click_away(visit: Visit, sat: Sat) -> None:
    two, three = (trial.id for trial in PLAN.trials()[1:3])
    tab, keys = visit.tab, visit.tab.keyboard
    visit.phase(PLACING)
    assert tab.get_by_role("group", name="Reached so far").is_hidden()
    visit.click("Start")
    visit.phase(PLAYING)
    tab.get_by_label("grasped").check()
    visit.phase(LABELLING)  # what was ticked while the arm moved is still ticked
    assert tab.get_by_label("grasped").is_checked()
    tab.get_by_label("dropped").check()
    visit.click("Failure")
    until(lambda: visit.trial() == two)
    keys.press("s")
    visit.phase(PLAYING)
    assert not tab.get_by_label("grasped").is_checked()
    assert tab.get_by_label("no code").is_checked()
    for key in "12a1b":  # ticked, ticked, a code, not ticked any more, another code
        keys.press(key)
    tab.get_by_label("Note").fill("2a")  # a note is only a note
    tab.get_by_label("Note").blur()
    keys.press("n")
    until(lambda: visit.trial() == three)
    keys.press("s")
    visit.phase(PLAYING)
    keys.press("a")
    keys.press("a")  # taken back
    keys.press("y")
    visit.phase("All trials are labelled")
    assert sat.details == [(("grasped",), "dropped"), (("lifted",), "collision"), ((), "")]


def test_the_stop_is_one_key_or_one_click_away_at_any_time_and_says_if_it_failed(visit: Visit, sat: Sat) -> None:
    visit.phase(PLACING)
    visit.tab.keyboard.press("Escape")
    visit.tab.get_by_role("alert").filter(has_text="Stop was pressed").wait_for()
    sat.n_errors = 1
    visit.click("Start")
    visit.phase("Something went wrong")
    visit.click("Reset the robot")
    visit.tab.get_by_text("The robot is reset").wait_for()
    visit.click("STOP THE ROBOT")
    until(lambda: sat.stops == ["stop", "recover", "stop"])

    def unplugged() -> None:
        raise RobotLinkError("ws://127.0.0.1:8765", "unplugged")

    sat.desk._stop = unplugged
    visit.click("STOP THE ROBOT")
    visit.tab.get_by_role("alert").filter(has_text="NOT confirmed: use the hardware stop").wait_for()


@pytest.mark.parametrize("width", [360, 1280])
def test_buttons_are_big_reached_by_tab_and_nothing_scrolls_sideways(visit: Visit, width: int) -> None:
    visit.tab.set_viewport_size({"width": width, "height": 800})
    visit.phase(PLACING)
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("Start", "Success", "Failure", "STOP THE ROBOT"):
        box = visit.tab.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 64
    reached = set()
    for _ in range(12):
        visit.tab.keyboard.press("Tab")
        reached.add(visit.tab.evaluate("document.activeElement.id"))
    assert {"share", "difference", "start", "keys", "estop"} <= reached


def test_a_lost_connection_is_told_at_once_and_nothing_can_be_pressed(browser: "BrowserContext") -> None:  # noqa: F811
    desk = Desk(lambda: None)
    desk.show("labelling", ("success",))
    tab = browser.new_page()
    with OperatorPage(desk) as served:
        tab.goto(served.url)
        until(lambda: tab.get_by_role("button", name="Success").is_enabled())
    tab.get_by_role("alert").filter(has_text="Use the hardware stop").wait_for()
    assert tab.get_by_role("button", name="Success").is_disabled()
    tab.close()


def test_a_robot_that_cannot_be_reset_says_why_and_waits() -> None:
    desk = Desk(lambda: None)

    def refused() -> None:
        raise RobotRefusedError("reset", "only FAULT and ESTOP need it, this is HOLD", "HOLD")

    operator = AtPage(desk, PLAN, "operator", lambda trial, press: None, refused)
    waiting = threading.Thread(target=operator.told, args=(PLAN.trials()[0], "it was stopped"))
    waiting.start()
    for word, message in (("recover", "it was stopped"), ("start", "this is HOLD")):
        until(lambda message=message: message in desk.view().facts.get("message", ""))
        desk.press(word, desk.view().number)
    waiting.join(10)
    assert not waiting.is_alive()


# -------------------------------------------------------------------------------------------------- a robot's server


SITTING = (
    ("placing", "start"), ("playing", "estop"), ("error", "recover"), ("error", "start"),
    ("placing", "start"), ("playing", "success"), ("placing", "start"), ("playing", "failure"), ("done", "start"),
)  # fmt: skip
"""What the operator presses, and in which phase: the first trial is stopped and repeated."""


def press(page: ClientConnection, phase: str, word: str) -> None:
    """Wait for a phase in which a button can be pressed, and press it."""
    while True:
        said = page.recv(timeout=30)
        if isinstance(said, str):
            facts = json.loads(said)
            if facts["phase"] == phase and (word in facts["buttons"] or word == "estop"):
                page.send(json.dumps({"do": word, "view": facts["view"]}))
                return


@pytest.mark.sim
def test_an_operator_ends_stops_resets_and_labels_trials_on_a_robot_in_real_time(tmp_path, monkeypatch) -> None:
    registry.register("policy", "still", Still)
    plan = replace(PLAN, policy="still", starts=1)
    folder, robot = made(tmp_path / "pilot", plan), Server(tmp_path, "--live", "--image-size", "128")
    urls: list[str] = []
    done: list[int] = []

    def play() -> None:
        sitting = Sitting(folder, plan, folder.seal(plan), robot.url)
        done.append(play_at_page(sitting, "operator", 0, urls.append))

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        until(lambda: bool(urls))
        with connect(urls[0].replace("http", "ws"), origin=urls[0]) as page:  # type: ignore[arg-type]
            for phase, word in SITTING:
                press(page, phase, word)
        thread.join(30)
    finally:
        robot.close()
    assert done == [2]
    attempts = folder.read_trials(plan)
    assert [attempt.error is None for attempt in attempts] == [False, True, True]
    assert "phase ESTOP" in str(attempts[0].error)
    assert attempts[0].counters["to_ESTOP"] == 1
    assert all(ms is not None for ms in attempts[1].sensor_to_action_ms)
    assert [record.outcome for record in journal.latest(journal.read(folder.blind))] == ["success", "timeout"]


# --------------------------------------------------------------------------------------------------- a second rater


def test_a_second_rater_sees_films_in_another_order_and_no_label(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(labelling, "FRAME_S", 0.005)
    monkeypatch.setattr(labelling, "LAST_S", 0.005)
    folder, trials = made(tmp_path / "pilot"), PLAN.trials()
    with journal.writing(folder.trials) as attempts, journal.writing(folder.labels("operator")) as labels:
        for trial in trials:
            film.write(folder.films / f"{trial.id}.mcap", "front", [SCENE, MOVED], 100.0)
            facts = (trial.id, trial.alias, trial.cell, 1, PLAN.sha256, None, (10.0,), {"ok": 1}, {}, {})
            attempts.append(TrialRecord(*facts, film=f"{trial.id}.mcap"))
            labels.append(Label(trial.id, True, "operator", PLAN.sha256, "2026-01-01T00:00:00"))
    desk = Desk(lambda: None)
    with pytest.raises(RaterError, match="'operator' labelled while the trials were played, and would agree"):
        Rating(folder, PLAN, "operator", desk)
    with pytest.raises(RaterError, match="has a name that is not of letters"):
        folder.labels("../operator")
    rating = Rating(folder, PLAN, "second", desk)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(rating.rate()), daemon=True)
    thread.start()
    seen: list[str] = []
    for word in ("failure", "undo", "success", "failure", "success", "failure", "undo", "success", "start"):
        until(lambda word=word: word in desk.view().facts["buttons"])
        facts = desk.view().facts
        assert "last" not in facts
        seen.append(str(facts.get("trial", "")))
        desk.press(word, desk.view().number)
        until(lambda facts=facts: desk.view().facts is not facts and desk.pressed() is None)
    thread.join(10)
    assert done == [4]
    assert seen[0] == seen[2]
    assert {trial.id for trial in trials} <= set(seen)
    found = folder.read_labels(PLAN, "second")
    assert [label.success for label in found.values()] == [True, False, True, True]
    assert folder.raters() == ["operator", "second"]
