"""The arms that the bridge can drive, by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vla_bench.errors import OptionError, UnknownNameError
from vla_bench_envs.robot.driver import Driver
from vla_bench_envs.robot.limits import Limits


def _simulated() -> Callable[..., Driver]:
    from vla_bench_envs.robot.drivers.remote_plant import RemotePlant

    return RemotePlant


def _lockstep() -> Callable[..., Driver]:
    from vla_bench_envs.robot.drivers.simulated import SimulatedArm

    return SimulatedArm


def _replay() -> Callable[..., Driver]:
    from vla_bench_envs.robot.drivers.replay import Replay

    return Replay


def _franky() -> Callable[..., Driver]:
    from vla_bench_envs.robot.drivers.franka import FrankaArm

    return FrankaArm


def _universal() -> Callable[..., Driver]:
    from vla_bench_envs.robot.drivers.universal import UniversalArm

    return UniversalArm


def _lerobot() -> Callable[..., Driver]:
    from vla_bench_envs.robot.drivers.lerobot import LerobotArm

    return LerobotArm


DRIVERS: dict[str, Callable[[], Callable[..., Driver]]] = {
    "sim": _simulated,
    "sim-lockstep": _lockstep,
    "replay": _replay,
    "franky": _franky,
    "ur": _universal,
    "lerobot": _lerobot,
}
"""Each imports a class that takes limits and the driver's own options by keyword."""


def make(name: str, limits: Limits, options: Mapping[str, Any] | None = None) -> Driver:
    """Return the driver of that name.

    Raises:
        UnknownNameError: If there is none.
        OptionError: If it lacks an option, or does not know one.
        MissingPackageError: If its package is not installed.
    """
    if name not in DRIVERS:
        raise UnknownNameError("robot driver", name, DRIVERS)
    kind, given = DRIVERS[name](), dict(options or {})
    signature = inspect.signature(kind)
    try:
        signature.bind(limits, **given)
    except TypeError as caught:
        known = [str(own) for key, own in signature.parameters.items() if key != "limits"]
        raise OptionError("options", given, f"those of the driver {name!r}: {', '.join(known)} ({caught})") from caught
    return kind(limits, **given)
