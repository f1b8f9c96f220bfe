"""A soak of the robot bridge: the simulated arm in real time, moved at 15 Hz for minutes, watchdogs and memory watched.

    OMP_NUM_THREADS=1 python benchmarks/robot_soak.py --minutes 10

Run it with nothing else on the machine: an arm that starves because the processor was busy is counted, too.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from vla_bench_envs.robot.environment import RealRobotEnv
from vla_bench_envs.robot.limits import SIMULATED
from vla_bench_envs.robot.suites import PROTOCOLS, SUITE

PERIOD_STEPS = 30
"""Control steps of one turn to and fro."""

MISSED = ("to_STARVED", "to_HOLD", "to_FAULT", "rejected", "stale_obs", "expired")
"""Counters that stay at 0 when no watchdog is missed and nothing is refused."""


@dataclass(frozen=True)
class Soak:
    """Move the arm to and fro and report what its watchdogs and its processes' memory did."""

    minutes: float = 10.0
    """How long."""

    rate_hz: float = 15.0
    """Actions a second."""

    limits: Path = SIMULATED
    """Limits file; a machine that is busy with other work needs more patience than the shipped one has."""

    image_size: int = 224
    """Height and width of both cameras' pictures [px]."""

    def run(self) -> int:
        """Print one row a minute, and a verdict; exit status 1 if a watchdog was missed."""
        words = [sys.executable, "-c", SERVE, "--limits", str(self.limits), "--live", "--port", "0"]
        with subprocess.Popen(
            [*words, "--image-size", str(self.image_size)], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            found = re.search(r"ws://\S+", server.stdout.readline())
            assert found is not None, "the server did not start"
            try:
                return self._drive(found[0], server.pid)
            finally:
                server.send_signal(2)

    def _drive(self, url: str, pid: int) -> int:
        n_steps = round(self.minutes * 60 * self.rate_hz)
        protocol = replace(
            PROTOCOLS["tabletop"],
            image_size=self.image_size,
            control_hz=self.rate_hz,
            horizons=((SUITE.name, n_steps + 1),),
        )
        env = RealRobotEnv(url, protocol)
        env.reset(seed=0, options={"task": 1, "init_state": 0})
        minute = round(60 * self.rate_hz)
        ages_ms: list[float] = []
        began_s = last_s = time.monotonic()
        periods_ms: list[float] = []
        print("minute  server MB  client MB  " + "  ".join(MISSED) + "  starved_ms")
        for step in range(1, n_steps + 1):
            push = 0.3 if step // PERIOD_STEPS % 2 else -0.3
            action = np.array([0, push, 0, 0, 0, 0, -1], dtype=np.float32)
            info = env.step(action)[4]
            now_s = time.monotonic()
            periods_ms.append((now_s - last_s) * 1e3)
            last_s = now_s
            if info["sensor_to_action_ms"] is not None:
                ages_ms.append(info["sensor_to_action_ms"])
            if step % minute == 0 or step == n_steps:
                counters = env.session.link.request({"t": "get_obs"})["counters"]
                missed = [int(counters.get(name, 0)) for name in MISSED]
                memory = f"{resident_mb(tree(pid)):9.1f}  {resident_mb([0]):9.1f}"
                print(f"{step / minute:6.1f}  {memory}  {missed}  {counters['starved_ms']:.0f}", flush=True)
        took_s = time.monotonic() - began_s
        env.close()
        print(f"{n_steps} steps in {took_s:.1f} s; period p50, p99, longest: {_spread(periods_ms)} ms")
        print(f"sensor to action p50, p99, longest: {_spread(ages_ms)} ms")
        print(f"missed: {dict(zip(MISSED, missed, strict=True))}")
        return int(any(missed))


def _spread(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in np.percentile(values, [50, 99, 100]))


SERVE = "import sys, tyro; from vla_bench_envs.robot.commands import Serve; sys.exit(tyro.cli(Serve).run())"
"""`vla-bench robot serve`, without what other commands import: their memory would be counted."""


def tree(pid: int) -> list[int]:
    """Return a process and all under it."""
    found, wave = [pid], [pid]
    while wave:
        wave = [
            int(child)
            for one in wave
            for task in Path(f"/proc/{one}/task").glob("*/children")
            for child in task.read_text().split()
        ]
        found += wave
    return found


def resident_mb(pids: list[int]) -> float:
    """Return the resident memory of some processes together [MB]; 0 stands for this one."""
    total_kb = 0
    for pid in pids:
        status = Path(f"/proc/{pid or 'self'}/status").read_text()
        total_kb += int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
    return total_kb / 1e3


if __name__ == "__main__":
    sys.exit(tyro.cli(Soak).run())
