"""Faults are injected into the real server, in real time: each ends in the state that the specification names.

Times are taken on the one monotonic clock that all processes of a machine share.
"""

import os
import signal
import time

import numpy as np
import pytest
from robot_servers import PATIENCE, Client, Driven, Lateness, Proxy, Server, event
from robots import LIMITS
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from vla_bench.protocol import Protocol
from vla_bench_envs.robot.client import RemoteLink
from vla_bench_envs.robot.commands import EStop, Home, Status
from vla_bench_envs.robot.environment import RealRobotEnv
from vla_bench_envs.robot.errors import RobotLinkError, RobotRefusedError
from vla_bench_envs.robot.log import read
from vla_bench_envs.robot.messages import MAX_BYTES, pack, unpack

pytestmark = pytest.mark.sim

SMALL = Protocol("small", ("front", "wrist"), 64, False, 0, (), 10.0)
HEARTBEAT_LOST_MS, LEASE_TTL_MS = PATIENCE["heartbeat_lost_ms"], PATIENCE["lease_ttl_ms"]
QUIET_MS = 10
"""A machine that wakes a thread later than this is busy with other work."""

STILL, PUSH = [0.0] * 7, [0, 0.4, 0, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    record = tmp_path_factory.mktemp("robot") / "session.mcap"
    made = Server(record.parent, "--live", "--image-size", "64", "--log", str(record))
    made.record = record
    yield made
    assert "Traceback" not in made.close()


@pytest.fixture
def start(tmp_path):
    """Start servers that are ended with the test, whatever becomes of it."""
    servers = []

    def started(*options: str, **keywords) -> Server:
        servers.append(Server(tmp_path, *options, **keywords))
        return servers[-1]

    yield started
    for made in servers:
        made.close()


@pytest.fixture
def watcher(server):
    link = RemoteLink(server.url, "observe")
    yield link
    link.close()


@pytest.fixture
def driven(server):
    """An armed client; the robot is brought back to IDLE or HOLD first."""
    with_reset(server)
    client = Driven(server.url).arm()
    yield client
    client.close()


def with_reset(server) -> None:
    operator = RemoteLink(server.url, "operator")
    operator.request({"t": "cmd", "op": "reset"})
    operator.close()


def say_and_hear(stranger, sent) -> None:
    stranger.send(sent)
    stranger.recv(timeout=5)


def stands(watcher) -> bool:
    time.sleep(0.4)
    return bool(np.abs(watcher.request({"t": "get_obs"})["state"]["velocities_rad_s"]).max() < 0.05)


def inside(watcher) -> bool:
    position = watcher.request({"t": "get_obs"})["state"]["position_m"]
    return bool((position >= LIMITS.box_low_m).all() and (position <= LIMITS.box_high_m).all())


def held_after(watcher, server, with_signal: int) -> tuple[str, float, float]:
    """Return the cause of HOLD after a client gets a signal, how long it took and what the machine adds [ms]."""
    with_reset(server)
    client = Client(server.url)
    try:
        with Lateness() as lateness:
            sent_ns = client.end(with_signal)
            held = event(watcher, "HOLD", sent_ns)
    finally:
        client.close()
    took_ms = (held["t_ns"] - sent_ns) * 1e-6
    print(f"\n{signal.Signals(with_signal).name}: HOLD after {took_ms:.0f} ms; lateness {lateness.worst_ms:.0f} ms")
    return held["cause"], took_ms, lateness.allowance_ms


def test_a_killed_client_leaves_the_arm_in_hold_within_100_ms(server, watcher) -> None:
    cause, took_ms, allowance_ms = held_after(watcher, server, signal.SIGKILL)
    assert cause == "lease_lost"
    assert took_ms <= 100 + allowance_ms
    assert stands(watcher)


def test_a_client_that_hangs_leaves_the_arm_in_hold_within_its_heartbeat_timeout_and_150_ms(server, watcher) -> None:
    cause, took_ms, allowance_ms = held_after(watcher, server, signal.SIGSTOP)
    assert cause == "heartbeat_lost"
    assert took_ms <= HEARTBEAT_LOST_MS + 150 + allowance_ms
    assert stands(watcher)


def needs_a_quiet_machine(lateness: Lateness) -> None:
    """Skip a bound in real time on a machine that wakes processes too late to say anything about it."""
    if lateness.worst_ms > QUIET_MS:
        pytest.skip(f"this machine is busy: it woke a thread {lateness.worst_ms:.0f} ms late")


@pytest.mark.slow
def test_with_the_shipped_limits_ten_clients_that_die_or_hang_are_noticed_in_time(start) -> None:
    server = start("--live", patient=False)
    watcher = RemoteLink(server.url, "observe")
    bounds_ms = {signal.SIGKILL: 100, signal.SIGSTOP: LIMITS.heartbeat_lost_ms + 150}
    with Lateness() as lateness:
        noticed = [(sent, held_after(watcher, server, sent)) for _ in range(5) for sent in bounds_ms]
    watcher.close()
    needs_a_quiet_machine(lateness)
    causes = {signal.SIGKILL: "lease_lost", signal.SIGSTOP: "heartbeat_lost"}
    assert [sent for sent, (cause, took_ms, _) in noticed if cause != causes[sent] or took_ms > bounds_ms[sent]] == []


def test_a_link_that_stalls_and_heals_leaves_the_arm_in_hold_until_it_is_armed_again(server, watcher) -> None:
    with_reset(server)
    proxy = Proxy(server.port)
    client = Driven(proxy.url).arm()
    assert client.act(PUSH)["verdict"] == "ok"
    with Lateness() as lateness:
        stalled_ns = proxy.stall(True)
        held = event(watcher, "HOLD", stalled_ns)
    assert held["cause"] == "heartbeat_lost"
    assert (held["t_ns"] - stalled_ns) * 1e-6 <= HEARTBEAT_LOST_MS + 150 + lateness.allowance_ms
    time.sleep(0.2)
    proxy.stall(False)
    assert client.act(PUSH)["reasons"] == ["phase"]
    assert client.command("arm", period_ms=100)["ok"]
    assert client.act(PUSH)["verdict"] == "ok"
    client.close()
    proxy.close()


def test_a_link_that_is_throttled_starves_the_arm_until_there_is_room_again(server, watcher) -> None:
    with_reset(server)
    proxy = Proxy(server.port)
    client = Driven(proxy.url).arm()
    assert client.act(PUSH)["verdict"] == "ok"
    throttled_ns = proxy.throttle(down=12_000)  # a look is 25 kB of pictures: two seconds; heartbeats go up freely
    assert client.act(PUSH)["verdict"] == "ok"  # late, and fresh enough
    assert event(watcher, "STARVED", throttled_ns)["cause"] == "action_deadline"
    assert stands(watcher)
    healed_ns = proxy.throttle()
    assert client.act(PUSH)["verdict"] == "ok"
    assert event(watcher, "ACTIVE", healed_ns)["cause"] == "fresh_action"
    assert {found["to"] for found in watcher.events if found["t_ns"] >= throttled_ns} == {"STARVED", "ACTIVE"}
    client.close()
    proxy.close()


def test_a_link_too_narrow_for_heartbeats_leaves_the_arm_in_hold_until_it_is_armed_again(server, watcher) -> None:
    with_reset(server)
    proxy = Proxy(server.port)
    client = Driven(proxy.url).arm()
    assert client.act(PUSH)["verdict"] == "ok"
    throttled_ns = proxy.throttle(up=20)  # of a heartbeat's 50 bytes, ten times a second
    held = event(watcher, "HOLD", throttled_ns, patience_s=6.0)
    assert held["cause"] == "heartbeat_lost"
    proxy.throttle()
    time.sleep(0.3)
    assert client.act(PUSH)["reasons"] == ["phase"]
    assert client.command("arm", period_ms=100)["ok"]
    assert client.act(PUSH)["verdict"] == "ok"
    client.close()
    proxy.close()


def test_a_half_open_link_locks_nobody_out(server, watcher) -> None:
    with_reset(server)
    proxy = Proxy(server.port)
    client = Driven(proxy.url).arm()
    stalled_ns = proxy.stall(True)
    other = Driven(server.url)
    assert other.command("acquire")["reason"] == "another client holds the lease"
    event(watcher, "HOLD", stalled_ns)
    time.sleep((LEASE_TTL_MS - HEARTBEAT_LOST_MS + 100) * 1e-3)
    assert other.arm().act(STILL)["verdict"] == "ok"
    other.close()
    proxy.close()
    client.close()


def test_a_connection_that_is_reset_leaves_the_arm_in_hold(server, watcher) -> None:
    with_reset(server)
    proxy = Proxy(server.port)
    client = Driven(proxy.url).arm()
    with Lateness() as lateness:
        reset_ns = proxy.reset()
        held = event(watcher, "HOLD", reset_ns)
    assert held["cause"] == "lease_lost"
    assert (held["t_ns"] - reset_ns) * 1e-6 <= 100 + lateness.allowance_ms
    with pytest.raises(RobotLinkError, match="no robot server answers at ws://"):
        client.look()
    client.close()
    proxy.close()


def test_actions_that_must_not_be_taken_are_refused_over_the_wire_with_their_reason(driven) -> None:
    assert driven.act(STILL)["verdict"] == "ok"
    assert driven.act([0.0] * 6)["reasons"] == ["shape"]
    assert driven.act(STILL)["verdict"] == "ok"
    assert driven.act(STILL, obs_seq=10**9)["reasons"] == ["unknown_obs"]
    time.sleep(1.0)  # three refusals within a second would hold the robot
    driven.sequence -= 2
    assert driven.act(STILL)["reasons"] == ["sequence"]
    driven.sequence += 2
    old = driven.look()["seq"]
    time.sleep(PATIENCE["observation_age_ms"] * 1e-3 + 0.1)
    assert driven.look()["phase"] == "STARVED"
    assert driven.act(STILL, obs_seq=old)["reasons"] == ["stale_obs"]
    assert driven.look()["phase"] == "STARVED"  # what answers an old observation is no fresh action
    assert driven.act(STILL)["verdict"] == "ok"


def test_an_action_that_is_not_finite_holds_the_arm_before_the_next_tick(driven) -> None:
    assert driven.act(PUSH)["verdict"] == "ok"
    said = driven.act([np.nan, *STILL[1:]])
    held = event(driven.link, "HOLD", said["t_recv_ns"])
    assert (said["verdict"], said["reasons"], held["cause"]) == ("rejected", ["non_finite"], "non_finite")
    assert held["t_ns"] == said["t_recv_ns"]  # at the instant it was received, not at the tick after


def test_commands_five_times_out_of_range_for_seconds_leave_the_box_by_nothing(driven, watcher) -> None:
    verdicts = []
    for step in range(25):
        sign = 5.0 if step < 12 else -5.0
        verdicts.append(driven.act([sign, -sign, -abs(sign), 0, 0, 0, 1])["verdict"])
        assert inside(watcher)
        if driven.look()["phase"] == "HOLD":
            driven.command("arm", period_ms=100)
    assert "ok" not in verdicts
    assert verdicts.count("clamped") >= 10


def test_a_second_client_with_a_stolen_lease_moves_nothing(server, driven) -> None:
    thief = Driven(server.url)
    assert thief.command("acquire")["reason"] == "another client holds the lease"
    assert thief.act(PUSH, lease=driven.link._lease)["reasons"] == ["no_lease"]
    assert thief.command("arm", lease=driven.link._lease)["reason"] == "the lease is not this client's"
    thief.close()
    assert driven.act(STILL)["verdict"] == "ok"


def test_an_observer_stops_the_robot_and_it_stays_stopped(driven, watcher) -> None:
    assert driven.act(PUSH)["verdict"] == "ok"
    assert watcher.request({"t": "estop"})["phase"] == "ESTOP"
    assert stands(watcher)
    for op in ("arm", "home", "reset"):
        assert not driven.command(op)["ok"]
    assert driven.act(PUSH)["reasons"] == ["phase"]


@pytest.mark.parametrize("sent", [b"\xc1\xff\x00garbage", "text", b"\x00" * (MAX_BYTES + 1), pack({"t": "reboot"})])
def test_frames_that_are_no_messages_close_their_connection_and_nothing_else(server, driven, sent) -> None:
    with connect(server.url, compression=None, max_size=None) as stranger:
        stranger.send(pack({"t": "hello", "proto": 1, "client": "x", "role": "observe"}))
        assert unpack(stranger.recv())["t"] == "welcome"
        with pytest.raises(ConnectionClosed):  # the server may close while a long frame is still on its way
            say_and_hear(stranger, sent)
    if driven.look()["phase"] == "HOLD":
        assert len(sent) > MAX_BYTES  # sending so much kept this process from its own heartbeat
        assert driven.command("arm", period_ms=100)["ok"]
    assert driven.act(STILL)["verdict"] == "ok"


@pytest.mark.parametrize(
    "hello", [{"t": "get_obs"}, {"t": "hello", "proto": 2, "client": "x", "role": "observe"}, {"t": "estop"}]
)
def test_who_does_not_say_hello_is_sent_away(server, hello: dict) -> None:
    with connect(server.url, compression=None) as stranger:
        stranger.send(pack(hello))
        with pytest.raises(ConnectionClosed, match="1008"):
            stranger.recv(timeout=5)


def test_a_flood_of_actions_moves_nothing_by_itself_and_keeps_the_loop_on_time(driven, watcher) -> None:
    seen = driven.look()["seq"]
    before = time.monotonic_ns()
    for _ in range(400):
        driven.sequence += 1
        message = {"t": "act", "seq": driven.sequence, "obs_seq": seen, "mode": "delta_pose"}
        driven.link._send(message | {"chunk": np.zeros((1, 7)), "lease": driven.link._lease})
    assert watcher.request({"t": "get_obs"})["phase"] in ("ACTIVE", "STARVED", "HOLD")  # HOLD: they grew stale
    assert not [found for found in watcher.events if found["to"] == "FAULT" and found["t_ns"] > before]


def test_a_client_that_asks_and_never_reads_holds_nobody_up(server, driven) -> None:
    with connect(server.url, compression=None, max_size=None, max_queue=1, close_timeout=0.5) as reader:
        reader.send(pack({"t": "hello", "proto": 1, "client": "deaf", "role": "observe"}))
        for _ in range(150):
            reader.send(pack({"t": "get_obs"}))
        assert [driven.act(STILL)["verdict"] for _ in range(3)] == ["ok"] * 3


def play(server, n_steps: int, think_s: float) -> tuple[list[float], list[float]]:
    """Return sensor-to-action times [ms] and the times of the steps [s] of a policy that thinks for so long."""
    with_reset(server)
    env = RealRobotEnv(url=server.url, protocol=SMALL)
    obs, info = env.reset(seed=0, options={"task": 1, "init_state": 3})
    assert len(info["init_state_sha256"]) == 64
    latencies, times = [], []
    for step in range(n_steps):
        time.sleep(think_s)
        obs, _, _, _, info = env.step(np.array([0, 0.3 if step % 8 < 4 else -0.3, 0, 0, 0, 0, -1], np.float32))
        times.append(time.monotonic())
        assert all(env.observation_space[name].contains(obs[name]) for name in obs)
        if info["verdict"] != "rejected":
            latencies.append(info["sensor_to_action_ms"])
    env.close()
    return latencies, times


def test_the_environment_plays_on_a_real_time_server(server) -> None:
    latencies, times = play(server, 12, 0.03)
    assert len(latencies) >= 8
    assert all(30 <= latency <= PATIENCE["observation_age_ms"] + 20 for latency in latencies)
    assert np.diff(times).min() > 0.03  # the policy's own time; a late observation shortens the next interval


@pytest.mark.slow
def test_at_10_hz_with_a_policy_of_30_ms_the_median_from_sensor_to_action_is_at_most_50_ms(start) -> None:
    server = start("--live", "--image-size", "64")
    with Lateness() as lateness:
        latencies, times = play(server, 100, 0.03)
    shown = [float(np.percentile(latencies, share)) for share in (50, 95, 99)]
    print(
        f"\nsensor to action [ms]: p50 {shown[0]:.1f}, p95 {shown[1]:.1f}, p99 {shown[2]:.1f}; load {os.getloadavg()}"
    )
    needs_a_quiet_machine(lateness)
    assert np.median(np.diff(times)) == pytest.approx(0.1, abs=0.01)
    assert np.median(latencies) <= 50


def test_everything_was_written_down(server, driven) -> None:
    driven.act(PUSH)
    driven.act([np.nan, *STILL[1:]])
    time.sleep(0.2)
    topics, reasons = set(), set()
    for topic, _, message in read(server.record):  # while it is being written
        topics.add(topic)
        reasons |= set(message.get("reasons", []))
    assert {"/cmd", "/act", "/act_ack", "/ack", "/obs", "/event", "/image/front", "/image/wrist"} <= topics


def test_a_wrong_token_is_refused_and_an_operator_needs_one_too(start) -> None:
    secret = "a secret of the laboratory"
    server = start(environment={"VLA_BENCH_ROBOT_TOKEN": secret})
    assert "dry run" in server.announced
    for role in ("control", "observe", "operator"):
        with pytest.raises(RobotLinkError, match="a wrong token"):
            RemoteLink(server.url, role, "guess")
    link = Driven(server.url, secret).arm()
    before = link.look()["state"]["joints_rad"]
    assert link.act(PUSH)["verdict"] == "ok"
    time.sleep(0.3)
    assert np.abs(link.look()["state"]["joints_rad"] - before).max() < 1e-3  # dry run: nothing was sent
    supervisor, plant = server.children()
    os.kill(server.process.pid, signal.SIGKILL)
    with pytest.raises(RobotLinkError, match="no robot server answers at"):
        link.look()
    link.close()
    server.close()
    for pid in (supervisor, plant):  # the arm brakes, then both end by themselves
        gone = time.monotonic() + 8
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < gone:
            time.sleep(0.05)
        assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.slow
def test_a_server_that_cannot_start_its_driver_says_why(tmp_path) -> None:
    with pytest.raises(AssertionError, match=r"the driver 'replay' could not be started \(.*has no log to play"):
        Server(tmp_path, "--driver", "replay")


@pytest.mark.slow
def test_a_server_whose_supervisor_dies_ends_and_says_so(start) -> None:
    server = start("--live")
    client = Driven(server.url).arm()
    supervisor, plant = server.children()
    os.kill(supervisor, signal.SIGKILL)
    assert server.process.wait(10) == 1
    assert "vla-bench: the supervisor's process has ended, and with it the hold on the arm" in server.close()
    with pytest.raises((RobotLinkError, RobotRefusedError)):
        client.look()
    client.close()
    gone = time.monotonic() + 8
    while os.path.exists(f"/proc/{plant}") and time.monotonic() < gone:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{plant}")


def test_the_command_line_shows_stops_and_frees_the_robot(server, capsys) -> None:
    with_reset(server)
    client = Driven(server.url).arm()
    client.act(PUSH)
    assert Status(server.url).run() == 0
    said = capsys.readouterr().out
    assert "sim (panda): ACTIVE (armed)" in said
    assert "dry run: False; lease held: True" in said
    assert EStop(server.url).run() == 0
    assert capsys.readouterr().out == "the robot is in ESTOP\n"
    assert Status(server.url).run() == 1
    with pytest.raises(RobotRefusedError, match="'home' in phase ESTOP: the lease is not this client's"):
        Home(server.url).run()
    client.close()
    time.sleep(0.2)
    assert Home(server.url, reset=True).run() == 0
    assert "the robot is in READY (arrived)" in capsys.readouterr().out
