"""The command line of the bridge: `vla-bench robot serve|status|estop|home|conformance`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_bench.errors import OptionError
from vla_bench_envs.robot import drivers, installation
from vla_bench_envs.robot.errors import RobotFileError, RobotRefusedError
from vla_bench_envs.robot.installation import Installation
from vla_bench_envs.robot.limits import Limits, load
from vla_bench_envs.robot.suites import SUITE

URL = "ws://127.0.0.1:8765"

WITHOUT_ROBOT_FILE = ("sim", "sim-lockstep", "replay")
"""Drivers that move no physical arm."""


@dataclass(frozen=True)
class Arm:
    """What the options of a command name."""

    limits: Limits
    driver: str
    options: dict[str, Any]
    suite: str
    """Of the tasks that are played on it; empty for none."""

    installation: Installation | None = None

    @classmethod
    def named(cls, robot: Path | None, limits: Path | None, driver: str, source: Path | None) -> "Arm":
        """Return the arm of a robot file, or the one that needs none.

        Raises:
            OptionError: If there is neither a robot file nor a limits file, or both.
            RobotFileError: If a physical arm comes without a robot file.
        """
        if (robot is None) == (limits is None):
            raise OptionError("--limits", limits, "either a limits file, or a robot file (--robot) that names one")
        if robot is not None:
            found = installation.load(robot)
            return cls(load(found.limits), found.driver, dict(found.options), found.facts["suite"], found)
        if driver in drivers.DRIVERS and driver not in WITHOUT_ROBOT_FILE:
            raise RobotFileError(
                f"--driver {driver}", "a physical arm needs a robot file (--robot), which names its suite"
            )
        assert limits is not None
        options = {"source": str(source)} if source is not None else {}
        return cls(load(limits), driver, options, "" if driver == "replay" else SUITE.name)


@dataclass(frozen=True)
class Serve:
    """Serve a robot: start its supervisor, then let clients in. Without --live nothing is sent to the arm."""

    robot: Path | None = None
    """Robot file: driver, limits, suite, cameras and tasks of one arm; a physical arm needs one."""

    limits: Path | None = None
    """Limits file, where there is no robot file; there is no default, see docs/real-robot.md."""

    driver: str = "sim"
    """What to drive without a robot file: `sim` (an arm simulated in real time) or `replay` (a log)."""

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
    """Height and width of the pictures [px]; a robot file states its own."""

    tls_cert: Path | None = None
    """Certificate (PEM): the link is encrypted, and connections that are not are refused."""

    tls_key: Path | None = None
    """Private key of the certificate (PEM)."""

    def run(self) -> int:
        """Serve until interrupted."""
        from vla_bench_envs.robot.encryption import server_context
        from vla_bench_envs.robot.serving import Service, serve
        from vla_bench_envs.robot.welcome import MAX_IMAGE_PX, MIN_IMAGE_PX

        if not MIN_IMAGE_PX <= self.image_size <= MAX_IMAGE_PX:
            raise OptionError("--image-size", self.image_size, f"{MIN_IMAGE_PX} to {MAX_IMAGE_PX}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise OptionError("--tls-cert", self.tls_cert, "both --tls-cert and --tls-key, or neither")
        arm = Arm.named(self.robot, self.limits, self.driver, self.source)
        installed = arm.installation
        service = Service(
            limits=arm.limits,
            driver=arm.driver,
            options=arm.options,
            suite=arm.suite,
            cameras=installed.cameras if installed else {},
            dry_run=not self.live,
            host=self.host,
            port=self.port,
            image_size_px=installed.facts["image_size_px"] if installed else self.image_size,
            record=self.log,
            tls=server_context(self.tls_cert, self.tls_key) if self.tls_cert and self.tls_key else None,
        )
        mode = "live" if self.live else "dry run: nothing is sent to the arm"
        what = f"driver {arm.driver}, {mode}, limits {arm.limits.sha256[:12]}, suite {arm.suite or 'none'}"
        serve(service, lambda url: print(f"robot server: {url} ({what})", flush=True))
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
        why = f"{obs['cause']}: {obs['detail']}" if obs["detail"] else obs["cause"]
        print(f"{robot['driver']} ({robot['arm']}): {obs['phase']} ({why})")
        limits = link.welcome["limits_sha256"][:12]
        print(f"suite: {link.welcome['suite'] or 'none'}; cameras: {', '.join(link.welcome['obs_spec']['cameras'])}")
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

    robot: Path | None = None
    """Robot file of this arm."""

    limits: Path | None = None
    """Limits file, where there is no robot file."""

    driver: str = "sim"
    """What to drive without a robot file."""

    source: Path | None = None
    """Log that the driver `replay` plays."""

    def run(self) -> int:
        """Check every promise and print what was found; exit status 1 if one is broken."""
        from vla_bench_envs.robot import conformance

        arm = Arm.named(self.robot, self.limits, self.driver, self.source)
        limits, driver = arm.limits, drivers.make(arm.driver, arm.limits, arm.options)
        bench = conformance.Bench(
            driver, limits, time.monotonic_ns, lambda n_ticks: time.sleep(n_ticks * limits.period_s)
        )
        results = conformance.check_driver(bench)
        for promise, found in results:
            print(f"{'broken' if found else 'kept':7s} {promise}{f': {found}' if found else ''}")
        return int(any(found for _, found in results))
