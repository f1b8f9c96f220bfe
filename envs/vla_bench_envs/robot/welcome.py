"""What a client is told of the robot when it is let in."""

from dataclasses import asdict
from typing import Any

from vla_bench.types import ActionSpec
from vla_bench_envs.robot.driver import Driver
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.messages import PROTOCOL

MIN_IMAGE_PX, MAX_IMAGE_PX = 32, 512


def robot_facts(driver: Driver, spec: ActionSpec, limits: Limits, dry_run: bool) -> dict[str, Any]:
    """Return what the supervisor knows: who the robot is, what an action means, and what it may do."""
    return {
        "proto": PROTOCOL,
        "robot": {"driver": driver.spec.name, "arm": driver.spec.arm, "tasks": list(driver.spec.tasks)},
        "caps": asdict(driver.caps),
        "action_spec": asdict(spec),
        "limits": {
            "box_low_m": list(limits.box_low_m),
            "box_high_m": list(limits.box_high_m),
            "step_m": limits.step_m,
            "step_rad": limits.step_rad,
            "servo_hz": limits.servo_hz,
        },
        "limits_sha256": limits.sha256,
        "hb_ms": limits.heartbeat_ms,
        "lease_ttl_ms": limits.lease_ttl_ms,
        "max_obs_age_ms": limits.observation_age_ms,
        "codec": "raw",
        "dry_run": dry_run,
    }


def observation_facts(cameras: tuple[str, ...], image_size_px: int) -> dict[str, Any]:
    """Return what the endpoint knows: which pictures an observation has."""
    return {"obs_spec": {"cameras": list(cameras), "image_size_px": image_size_px}}
