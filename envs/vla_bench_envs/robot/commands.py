"""The command line of the bridge: `vla-bench robot serve|status|estop|home|conformance`."""

import time
from dataclasses import dataclass
from pathlib import Path

from vla_bench.errors import OptionError
from vla_bench_envs.robot.errors import RobotRefusedError
from vla_bench_envs.robot.limits import load

URL = "ws://127.0.0.1:8765"


@dataclass(frozen=True)
class Serve:
    """Serve a robot: start its supervisor, then let clients in. Without --live nothing is sent to the arm."""

    limits: Path
    """Limits file of this robot; there is no default, see docs/real-robot.md."""

    driver: str = "sim"
    """What to drive: `sim` (an arm simulated in real time) or `replay` (a log)."""

    live: bool = False
    """Send set-points to the arm; otherwise everything is decided, logged and not sent."""

    host: str = "127.0.0.1"
    """Address to listen on; any but loopback needs a token in VLA_BENCH_ROBOT_TOKEN."""

    port: int = 8765
    """Port to listen on; 0 takes a free one."""

    log: Path | None = None
    """MCAP file that everything is written to; it must not exist."""

    source: Path | None = None
    """Log that the driver `replay` plays."""

    image_size: int = 224
    """Height and width of the pictures [px]."""

    def run(self) -> int:
        """Serve until interrupted."""
        from vla_bench_envs.robot.serving import Service, serve
        from vla_bench_envs.robot.welcome import MAX_IMAGE_PX, MIN_IMAGE_PX

        if not MIN_IMAGE_PX <= self.image_size <= MAX_IMAGE_PX:
            raise OptionError("--image-size", self.image_size, f"{MIN_IMAGE_PX} to {MAX_IMAGE_PX}")
        limits = load(self.limits)
        service = Service(
            limits, self.driver, self.source, not self.live, self.host, self.port, self.image_size, self.log
        )
        mode = "live" if self.live else "dry run: nothing is sent to the arm"

        def announce(url: str) -> None:
            print(f"robot server: {url} (driver {self.driver}, {mode}, limits {limits.sha256[:12]})", flush=True)

        serve(service, announce)
        return 0


@dataclass(frozen=True)
class Status:
    """Show a robot's phase, why it is in it, and the counters of its gate."""

    url: str = URL
    """Of the robot server."""

    def run(self) -> int:
        """Print what the server says; exit status 1 if the robot is in a fault or stopped."""
        from vla_bench_envs.robot.client import RemoteLink

        link = RemoteLink(self.url, "observe")
        try:
            obs = link.request({"t": "get_obs"})
        finally:
            link.close()
        robot, state = link.welcome["robot"], obs["state"]
        print(f"{robot['driver']} ({robot['arm']}): {obs['phase']} ({obs['cause']})")
        limits = link.welcome["limits_sha256"][:12]
        print(f"dry run: {link.welcome['dry_run']}; lease held: {obs['leased']}; limits {limits}")
        print(f"tool at {state['position_m'].round(4).tolist()} m, gripper {state['gripper_m'] * 1e3:.0f} mm")
        for name, value in sorted(obs["counters"].items()):
            print(f"{name:16s} {value:g}")
        return int(obs["phase"] in ("FAULT", "ESTOP"))


@dataclass(frozen=True)
class EStop:
    """Stop a robot; it stays stopped until the operator resets it. Not a substitute for the hardware stop."""

    url: str = URL
    """Of the robot server."""

    def run(self) -> int:
        """Stop it, and say in which phase it is."""
        from vla_bench_envs.robot.client import RemoteLink

        link = RemoteLink(self.url, "observe")
        try:
            print(f"the robot is in {link.request({'t': 'estop'})['phase']}")
        finally:
            link.close()
        return 0


@dataclass(frozen=True)
class Home:
    """Send a robot home, at its own computer and while nobody holds the lease."""

    url: str = URL
    """Of the robot server."""

    reset: bool = False
    """First end FAULT or ESTOP: look at the robot before you say so."""

    patience_s: float = 30.0
    """How long to wait for it to arrive."""

    def run(self) -> int:
        """Send it home and wait until it is there."""
        from vla_bench_envs.robot.client import RemoteLink

        link = RemoteLink(self.url, "operator")
        try:
            for op in ("reset", "home") if self.reset else ("home",):
                said = link.request({"t": "cmd", "op": op})
                if not said["ok"]:
                    raise RobotRefusedError(op, said["reason"], said["phase"])
            deadline = time.monotonic() + self.patience_s
            while (obs := link.request({"t": "get_obs"}))["phase"] == "HOMING" and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            link.close()
        print(f"the robot is in {obs['phase']} ({obs['cause']})")
        return int(obs["phase"] != "READY")


@dataclass(frozen=True)
class Conformance:
    """Hold a driver to its promises. It moves every joint by 0.05 rad: clear the table, hand on the hardware stop."""

    limits: Path
    """Limits file of this robot."""

    driver: str = "sim"
    """What to drive."""

    source: Path | None = None
    """Log that the driver `replay` plays."""

    def run(self) -> int:
        """Check every promise and print what was found; exit status 1 if one is broken."""
        from vla_bench_envs.robot import conformance, drivers

        limits = load(self.limits)
        driver = drivers.make(self.driver, limits, self.source)
        bench = conformance.Bench(
            driver, limits, time.monotonic_ns, lambda n_ticks: time.sleep(n_ticks * limits.period_s)
        )
        results = conformance.check_driver(bench)
        for promise, found in results:
            print(f"{'broken' if found else 'kept':7s} {promise}{f': {found}' if found else ''}")
        return int(any(found for _, found in results))
