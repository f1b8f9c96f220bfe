"""The supervisor in its own process: it owns the driver, ticks, and outlives whoever talks to it.

When the endpoint is gone the arm brakes, holds, and the driver is let go. Whatever happens here, the driver is stopped
last.
"""

import gc
import signal
import time
from typing import Any

from vla_bench.errors import VlaBenchError
from vla_bench.types import ActionSpec
from vla_bench_envs.robot import drivers, requests
from vla_bench_envs.robot.channel import Channel, ChannelClosedError, inherited
from vla_bench_envs.robot.driver import Driver
from vla_bench_envs.robot.limits import Limits, parse
from vla_bench_envs.robot.supervisor import Supervisor
from vla_bench_envs.robot.tabletop.collision import Collision
from vla_bench_envs.robot.welcome import robot_facts

BRAKING_S = 2.0
"""Patience for coming to rest when the endpoint is gone."""


def main() -> None:
    """Serve one endpoint until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the endpoint decides when this ends, by closing the channel
    channel = inherited()
    try:
        channel.wait(60)
        _start(channel, channel.receive()[0])
    except ChannelClosedError:
        return


def _start(channel: Channel, options: dict[str, Any]) -> None:
    try:
        limits = parse(options["limits"])
        driver = drivers.make(options["driver"], limits, options["options"])
        supervisor = Supervisor(limits, driver, Collision(limits), ActionSpec(), options["dry_run"])
    except VlaBenchError as caught:
        channel.send({"t": "failed", "problem": str(caught)})
        return
    try:
        supervisor.connect(time.monotonic_ns())
        channel.send({"t": "ready", "facts": robot_facts(driver, supervisor.spec, limits, supervisor.dry_run)})
        _serve(channel, supervisor)
        _brake(supervisor, limits)
    except VlaBenchError as caught:
        channel.send({"t": "failed", "problem": str(caught)})
    finally:
        _let_go(driver)


def _serve(channel: Channel, supervisor: Supervisor) -> None:
    """Tick until the endpoint is gone."""
    gc.collect()
    gc.freeze()  # what exists stays; collections in a tick are short
    period_ns = supervisor.limits.period_ns
    due_ns = time.monotonic_ns() + period_ns
    while True:
        channel.wait((due_ns - time.monotonic_ns()) * 1e-9)
        try:
            for packet in channel.receive():
                _take(supervisor, packet)
            now_ns = time.monotonic_ns()
            if now_ns >= due_ns:
                supervisor.tick(now_ns)
                due_ns = max(due_ns + period_ns, now_ns + period_ns // 2)  # late is late: ticks never come in a burst
            while supervisor.outbox:
                session, message = supervisor.outbox.popleft()
                channel.send({"session": session, "message": message})  # no room: the endpoint hangs, heartbeats stop
        except ChannelClosedError:
            requests.link_lost(supervisor, time.monotonic_ns())
            return


def _take(supervisor: Supervisor, packet: dict[str, Any]) -> None:
    now_ns = time.monotonic_ns()
    if "gone" in packet:
        requests.gone(supervisor, packet["gone"], now_ns)
    else:
        requests.receive(supervisor, packet["session"], packet["role"], packet["message"], now_ns)


def _brake(supervisor: Supervisor, limits: Limits) -> None:
    """Tick on until the arm stands."""
    deadline = time.monotonic() + BRAKING_S
    while not supervisor.limiter.at_rest and time.monotonic() < deadline:
        time.sleep(limits.period_s)
        supervisor.tick(time.monotonic_ns())


def _let_go(driver: Driver) -> None:
    try:
        driver.stop()
    except VlaBenchError:
        return  # it is gone already
    finally:
        driver.close()


if __name__ == "__main__":
    main()
