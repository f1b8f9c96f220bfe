"""The hardware driver of a Franka, without hardware: franky-sim speaks libfranka's protocol over MuJoCo.

`pip install franky-control franky-sim`. The simulator knows no reflexes; its clock is slower than the wall's on a busy
machine, so promises are checked on its clock.
"""

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from robot_servers import PATIENCE, Driven, Server, event, limits_with
from robots import HOME, LIMITS

from vla_bench_envs.robot.client import RemoteLink
from vla_bench_envs.robot.conformance import Bench, check_driver
from vla_bench_envs.robot.drivers import make
from vla_bench_envs.robot.drivers.franka import FrankaArm
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("franky", "franky_sim")),
        reason="pip install franky-control franky-sim",
    ),
]

SIMULATOR = """
import sys
from franky_sim import SimulationServer
from franky_sim.mujoco_simulator import MujocoSimulator
with MujocoSimulator() as simulator:
    robot = simulator.add_robot(initial_q=[float(word) for word in sys.argv[1:]])
    with SimulationServer(simulator) as server:
        print(robot.hostname, flush=True)
        server.run_forever()
"""


@pytest.fixture
def simulator() -> Iterator[subprocess.Popen[str]]:
    """A simulated FR3 at home; `address` is where."""
    words = [sys.executable, "-c", SIMULATOR, *map(str, HOME)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.address = process.stdout.readline().strip()  # type: ignore[attr-defined]
        yield process
        process.kill()


def options(simulator) -> dict:
    return {"address": simulator.address, "realtime": False}


def clock_ms(driver) -> int:
    return int(driver._robot.state.time.to_msec())


def wait(driver, n_ticks: int) -> None:
    """Let servo periods pass on the simulator's clock."""
    due_ms = clock_ms(driver) + 10 * n_ticks
    while clock_ms(driver) < due_ms:
        time.sleep(0.001)


def test_a_franka_keeps_the_promises_of_a_driver(simulator) -> None:
    driver = make("franky", LIMITS, options(simulator))
    bench = Bench(driver, LIMITS, time.monotonic_ns, lambda n_ticks: wait(driver, n_ticks))
    results = check_driver(bench)
    assert len(results) == 11
    assert [(promise, found) for promise, found in results if found] == []


def test_a_franka_holds_opens_its_hand_and_says_what_it_misses(simulator) -> None:
    driver = FrankaArm(LIMITS, **options(simulator))
    with pytest.raises(DriverError, match="is not connected"):
        driver.read(0)
    driver.connect(0)
    try:
        start = driver.read(1).joints_rad
        width_m = driver.read(1).gripper_m
        for gripper_m in np.linspace(width_m, 0.0, 40):
            driver.command(SetPoint(start, float(gripper_m)))
            wait(driver, 2)
        wait(driver, 50)
        assert driver.read(1).gripper_m < width_m / 2
        driver.hold()
        wait(driver, 20)
        assert np.abs(driver.read(1).joints_rad - start).max() < 0.005
        driver.stop()
        driver.command(SetPoint(start + 0.1, 0.0))  # ignored
        wait(driver, 20)
        assert np.abs(driver.read(1).joints_rad - start).max() < 0.005
        driver.recover()
        driver.command(SetPoint(start, 0.0))
    finally:
        driver.close()
    with pytest.raises(DriverError, match=r"cannot open 127\.99\.0\.1"):
        FrankaArm(LIMITS, "127.99.0.1", realtime=False).connect(0)


ROBOT_FILE = """
suite = "simulated-fr3@1"
driver = "franky"
limits = "limits.toml"
[options]
address = "{address}"
realtime = false
[cameras.front]
make = "robot_cameras:Grey"
[[tasks]]
name = "nothing"
instruction = "do nothing"
horizon_steps = 20
n_starts = 2
"""


def test_a_franka_is_served_moved_stopped_reset_and_its_loss_is_a_fault(simulator, tmp_path, monkeypatch) -> None:
    (tmp_path / "limits.toml").write_text(limits_with(**PATIENCE))
    robot = tmp_path / "robot.toml"
    robot.write_text(ROBOT_FILE.format(address=simulator.address))
    server = Server(tmp_path, "--robot", str(robot), "--live", limits=False)
    try:
        assert "suite simulated-fr3@1" in server.announced
        client = Driven(server.url).arm()
        before = client.look()["state"]["position_m"]
        applied = [client.act([0, 0.2, 0, 0, 0, 0, -1])["verdict"] for _ in range(5)]
        assert set(applied) == {"ok"}
        deadline = time.monotonic() + 10
        while client.look()["state"]["position_m"][1] - before[1] < 0.008 and time.monotonic() < deadline:
            time.sleep(0.05)
        moved = client.look()["state"]["position_m"] - before
        assert 0.008 <= moved[1] <= 0.06  # 0.2 of 0.05 m, five times if the set-point has arrived each time
        assert np.abs(moved[[0, 2]]).max() < 0.01
        assert client.look()["img"]["front"].shape == (224, 224, 3)
        assert client.link.request({"t": "estop"})["phase"] == "ESTOP"
        operator = RemoteLink(server.url, "operator")
        assert operator.request({"t": "cmd", "op": "reset"})["ok"]
        operator.close()
        deadline = time.monotonic() + 10
        while not client.command("home")["ok"] and time.monotonic() < deadline:
            client.command("acquire")  # recovering may take longer than a lease lives on a busy machine
            time.sleep(0.2)
        while client.look()["phase"] == "HOMING":
            time.sleep(0.05)
        assert client.look()["phase"] == "READY"
        assert client.command("arm", period_ms=100)["ok"]
        lost_ns = time.monotonic_ns()
        simulator.send_signal(signal.SIGKILL)
        assert event(client.link, "FAULT", lost_ns, patience_s=10.0)["cause"] == "driver_error"
        client.close()
    finally:
        assert "Traceback" not in server.close()
