"""Start the server: the supervisor's process, then the endpoint in this one."""

import asyncio
import os
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_bench_envs.robot.channel import Channel, ChannelClosedError, spawn
from vla_bench_envs.robot.endpoint import LOOPBACK, Endpoint
from vla_bench_envs.robot.errors import DriverError, ExposureError
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.log import Log
from vla_bench_envs.robot.welcome import observation_facts

if TYPE_CHECKING:
    from vla_bench_envs.robot.photography import Photography
    from vla_bench_envs.robot.tabletop.pictures import Pictures as Drawn

TOKEN_VARIABLE = "VLA_BENCH_ROBOT_TOKEN"
"""Environment variable with the secret that clients must show; on the command line everybody could read it."""

LEAST_TOKEN = 16
"""Characters of a token that protects a robot on a network."""

END_S = 15.0
"""Patience for the arm to brake and the driver to let go."""

START_S = 90.0
"""Patience for the supervisor and its driver."""


@dataclass(frozen=True)
class Service:
    """What to serve, and where."""

    limits: Limits
    driver: str
    options: Mapping[str, Any]
    """Of the driver."""

    suite: str
    """Of the tasks that may be played here; empty for none."""

    cameras: Mapping[str, Mapping[str, Any]]
    """Where pictures come from, by the name under which a policy sees them; none are the simulated scene's own."""

    dry_run: bool
    host: str
    port: int
    image_size_px: int
    record: Path | None
    tls: ssl.SSLContext | None = None
    """Refuses connections that are not encrypted."""


def token_for(host: str) -> str:
    """Return the secret of the environment, or an empty one on loopback.

    Raises:
        ExposureError: If others could reach the server and the secret is missing or short.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if host not in LOOPBACK and len(token) < LEAST_TOKEN:
        raise ExposureError(host)
    return token


def serve(service: Service, announce: Callable[[str], None]) -> None:
    """Serve until interrupted; `announce` is given the address.

    Raises:
        ExposureError: See `token_for`.
        DriverError: If the supervisor cannot start the driver.
        LogError: If the log cannot be created.
        SupervisorLostError: If the supervisor dies.
    """
    token = token_for(service.host)
    record = None if service.record is None else Log(service.record)
    process, channel = spawn("vla_bench_envs.robot.supervisor_process")
    try:
        channel.send(
            {
                "limits": asdict(service.limits),
                "driver": service.driver,
                "options": dict(service.options),
                "dry_run": service.dry_run,
            }
        )
        facts = _await_ready(channel, service.driver)
        pictures = _pictures(service)
        facts |= observation_facts(pictures.names if pictures else (), service.image_size_px)
        facts |= {"suite": service.suite}
        endpoint = Endpoint(channel, facts, pictures, token, record)
        asyncio.run(_run(endpoint, service, announce))
    finally:
        channel.close()  # the arm brakes, and the supervisor lets go of it
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if record is not None:
            record.close()


async def _run(endpoint: Endpoint, service: Service, announce: Callable[[str], None]) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(endpoint.run(service.host, service.port, started, service.tls))
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    if started.done():
        scheme = "ws" if service.tls is None else "wss"
        announce(f"{scheme}://{service.host}:{started.result()}")
    await running


def _pictures(service: Service) -> "Drawn | Photography | None":
    """Return what draws the simulated scene, or the arm's cameras."""
    if service.driver == "sim":
        from vla_bench_envs.robot.tabletop.pictures import Pictures

        scene = {name: source["scene"] for name, source in service.cameras.items()}
        return Pictures(service.limits, service.image_size_px, scene)
    if service.cameras:
        from vla_bench_envs.robot.photography import Photography

        return Photography(service.cameras, service.image_size_px)
    return None


def _await_ready(channel: Channel, driver: str) -> dict:
    """Return what the supervisor says of the robot once the driver is connected."""
    try:
        channel.wait(START_S)
        said = channel.receive()
    except ChannelClosedError as caught:
        raise DriverError(driver, "ended its supervisor before it was connected") from caught
    if not said:
        raise DriverError(driver, f"was not connected within {START_S:.0f} s")
    if said[0]["t"] == "failed":
        raise DriverError(driver, f"could not be started ({said[0]['problem']})")
    return said[0]["facts"]
