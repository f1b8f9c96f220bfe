"""A session's log reads back what was written, cut or whole, and can be played again."""

import numpy as np
import pytest
from robots import LIMITS, Desk
from test_robot_tabletop import bench

from vla_bench_envs.robot import drivers
from vla_bench_envs.robot.conformance import check_driver
from vla_bench_envs.robot.drivers.replay import Replay
from vla_bench_envs.robot.errors import DriverError, LogError
from vla_bench_envs.robot.log import Log, pixels, read


@pytest.fixture
def logged(tmp_path):
    """A log of a session in which the arm moved for two seconds."""
    path = tmp_path / "session.mcap"
    desk, log = Desk().armed(), Log(path)
    for step in range(20):
        said = desk.act("a", [0.3, -0.2, 0, 0, 0, 0, 0])
        log.write("/act_ack", said, desk.now_ns)
        desk.wait(0.09)
        obs = desk.ask("a", {"t": "get_obs"})
        log.write("/obs", {key: obs[key] for key in ("t_cap_ns", "state")}, obs["t_cap_ns"])
        log.picture("front", np.full((64, 64, 3), 10 * step, np.uint8), desk.now_ns)
    log.close()
    log.close()
    return path, desk


def test_a_log_holds_what_happened_in_the_order_in_which_it_did(logged) -> None:
    path, desk = logged
    records = list(read(path))
    assert [topic for topic, _, _ in records] == ["/act_ack", "/obs", "/image/front"] * 20
    times = [t_ns for topic, t_ns, _ in records if topic == "/obs"]
    assert times == sorted(times)
    assert records[0][2]["verdict"] == "ok"
    assert np.allclose(records[-2][2]["state"]["joints_rad"], desk.driver.joints_rad, atol=0.02)
    assert np.abs(pixels(records[-1][2]).astype(int) - 190).max() <= 2


def test_a_log_that_was_cut_is_read_up_to_the_cut(logged) -> None:
    path, _ = logged
    long = path.with_name("long.mcap")
    log = Log(long)
    rng = np.random.default_rng(0)
    for step in range(60):
        log.picture("front", rng.integers(0, 255, (96, 96, 3), dtype=np.uint8), step)
    log.close()
    whole = long.read_bytes()
    cut = path.with_name("cut.mcap")
    cut.write_bytes(whole[: int(0.6 * len(whole))])
    found = [t_ns for _, t_ns, _ in read(cut)]
    assert 25 <= len(found) < 60
    assert found == list(range(len(found)))


def test_numbers_that_are_not_finite_are_written_as_words(tmp_path) -> None:
    log = Log(tmp_path / "a.mcap")
    log.write("/act", {"chunk": np.array([[np.nan, np.inf]]), "raw": b"1234", 5: np.float32(2)}, 1)
    log.close()
    assert [message for _, _, message in read(tmp_path / "a.mcap")] == [
        {"chunk": [["nan", "inf"]], "raw": "4 bytes", "5": 2.0}
    ]


def test_a_log_is_never_overwritten_and_nothing_else_is_read_as_one(tmp_path) -> None:
    (tmp_path / "a.mcap").write_bytes(b"no log, no log, no log, no log")
    with pytest.raises(LogError, match=r"a\.mcap cannot be created \(File exists\): name a file that 'vla-bench robot"):
        Log(tmp_path / "a.mcap")
    with pytest.raises(LogError, match=r"a\.mcap is no log of this bridge"):
        list(read(tmp_path / "a.mcap"))
    with pytest.raises(LogError, match=r"b\.mcap cannot be opened \(No such file or directory\)"):
        list(read(tmp_path / "b.mcap"))


def test_a_replay_measures_what_was_measured_at_the_same_time_and_moves_nothing(logged) -> None:
    path, desk = logged
    replay = drivers.make("replay", LIMITS, {"source": path})
    assert isinstance(replay, Replay)
    replay.connect(10**12)
    first, middle, last = (replay.read(10**12 + round(s * 1e9)) for s in (0.0, 1.0, 60.0))
    assert (first.joints_rad != middle.joints_rad).any()
    assert np.allclose(last.joints_rad, desk.driver.joints_rad, atol=0.02)
    assert last.t_ns == 10**12 + 60 * 10**9


def test_a_replay_keeps_the_promises_of_a_driver_that_does_not_move(logged) -> None:
    results = check_driver(bench(Replay(LIMITS, logged[0])))
    assert [(promise, found) for promise, found in results if found] == []
    assert len(results) == 6


def test_a_policy_can_be_driven_over_a_replay(logged) -> None:
    desk = Desk(Replay(LIMITS, logged[0])).armed()
    assert desk.act("a", [0.3, 0, 0, 0, 0, 0, 0])["verdict"] == "ok"
    desk.wait(1.0)
    assert desk.phase == "STARVED"
    assert len(desk.driver.sent) > 100


def test_a_replay_without_a_log_of_this_arm_is_refused(tmp_path, logged) -> None:
    with pytest.raises(LogError, match=r"^the driver 'replay' has no log to play \(--source\)"):
        drivers.make("replay", LIMITS)
    Log(tmp_path / "empty.mcap").close()
    with pytest.raises(LogError, match=r"empty\.mcap holds no observation of an arm with 7 joints"):
        drivers.make("replay", LIMITS, {"source": tmp_path / "empty.mcap"})
    with pytest.raises(DriverError, match="cannot begin task 0, start 0: a log begins where it began"):
        Replay(LIMITS, logged[0]).begin(0, 0)
