"""The arms that the bridge can drive, by name."""

from collections.abc import Callable
from pathlib import Path

from vla_bench.errors import UnknownNameError
from vla_bench_envs.robot.driver import Driver
from vla_bench_envs.robot.limits import Limits


def _simulated(limits: Limits, source: Path | None) -> Driver:  # noqa: ARG001 - one signature for all
    from vla_bench_envs.robot.drivers.remote_plant import RemotePlant

    return RemotePlant(limits)


def _lockstep(limits: Limits, source: Path | None) -> Driver:  # noqa: ARG001
    from vla_bench_envs.robot.drivers.simulated import SimulatedArm

    return SimulatedArm(limits)


def _replay(limits: Limits, source: Path | None) -> Driver:
    from vla_bench_envs.robot.drivers.replay import Replay

    return Replay(limits, source)


DRIVERS: dict[str, Callable[[Limits, Path | None], Driver]] = {
    "sim": _simulated,
    "sim-lockstep": _lockstep,
    "replay": _replay,
}
"""Each makes a driver from the limits and, for those that play something back, a file."""


def make(name: str, limits: Limits, source: Path | None = None) -> Driver:
    """Return the driver of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in DRIVERS:
        raise UnknownNameError("robot driver", name, DRIVERS)
    return DRIVERS[name](limits, source)
