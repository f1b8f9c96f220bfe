"""The plant in its own process and in real time, like an arm's own controller: it goes on when the supervisor hangs.

Without set-points it stands; when the supervisor is gone it ends.
"""

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from vla_bench_envs.robot.channel import Channel, ChannelClosedError, inherited
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import parse
from vla_bench_envs.robot.tabletop.plant import Plant

PERIOD_NS = 4_000_000
"""Between states; physics takes two steps in it."""

BEHIND_NS = 50_000_000
"""If the machine was busy for longer, physics skips the time instead of catching up."""


def main() -> None:
    """Serve one supervisor until it is gone."""
    channel = inherited()
    try:
        channel.wait(60)
        run(channel, Plant(parse(channel.receive()[0]["limits"])))
    except ChannelClosedError:
        return


def run(channel: Channel, plant: Plant) -> None:
    """Let physics follow the wall's clock."""
    plant.t_ns = due_ns = time.monotonic_ns()
    while True:
        for message in channel.receive():
            _obey(channel, plant, message)
        now_ns = time.monotonic_ns()
        plant.t_ns = max(plant.t_ns, now_ns - BEHIND_NS)
        plant.advance(now_ns)
        channel.send({"t": "state", "state": asdict(plant.state())})
        due_ns = max(due_ns + PERIOD_NS, now_ns)
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns * 1e-9)


def _obey(channel: Channel, plant: Plant, message: dict[str, Any]) -> None:
    kind = message["t"]
    if kind == "command":
        plant.aim(SetPoint(np.array(message["joints_rad"]), message["gripper_m"]))
    elif kind == "hold":
        plant.hold()
    elif kind in ("stop", "recover"):
        plant.hold()
        plant.stopped = kind == "stop"
    elif kind == "begin":
        try:
            said = {"sha256": plant.begin(message["task"], message["init_state"]), "problem": ""}
        except DriverError as caught:
            said = {"sha256": "", "problem": str(caught)}
        channel.send({"t": "begun"} | said)


if __name__ == "__main__":
    main()
