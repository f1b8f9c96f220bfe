"""What a picture of SIMPLER costs: in SAPIEN's own pass, and in two, one of them without colour for what is covered.

Both are drawn in turn of the same scene, so that a busy machine slows both alike; the processor's time in user mode is
given beside the clock, of all threads. Fails if a pixel differs.

    MS_ASSET_DIR=... python benchmarks/simpler_pictures.py
"""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro

from vla_bench_envs.libero.startup import quiet
from vla_bench_envs.simpler.pictures import draw
from vla_bench_envs.simpler.protocols import CAMERA, SimplerProtocol
from vla_bench_envs.simpler.startup import NATIVE_PX, make_simulator
from vla_bench_envs.simpler.suites import NAME, SUITES, TWINS


@dataclass(frozen=True)
class SimplerPictures:
    """Time pictures of each task's first start."""

    tasks: tuple[int, ...] = (0, 1, 2, 3)
    protocols: tuple[str, ...] = ("reference", "reference-fast")
    pictures: int = 10
    """Of each kind."""

    def run(self) -> None:
        """Print a row for each task and protocol."""
        print(f"{'protocol':16}{'task':26}{'px':>10}{'one [ms]':>10}{'two [ms]':>10}{'user: one':>10}{'two':>8}")
        for name in self.protocols:
            protocol = SUITES[NAME].protocol(name)
            for task in self.tasks:
                simulators = [_built(task, protocol, in_two_passes) for in_two_passes in (False, True)]
                np.testing.assert_array_equal(*(simulator_picture(one, protocol) for one in simulators))
                (one_ms, one_user), (two_ms, two_user) = self._timed(simulators, protocol)
                px = "x".join(str(side // protocol.reduction) for side in NATIVE_PX)
                print(
                    f"{name:16}{TWINS[task].name:26}{px:>10}{one_ms:10.0f}{two_ms:10.0f}{one_user:10.0f}{two_user:8.0f}"
                )
                for simulator in simulators:
                    simulator.close()

    def _timed(self, simulators: list[Any], protocol: SimplerProtocol) -> list[tuple[float, float]]:
        """Return the median of the clock and the mean of the processor's time [ms], of each simulator."""
        laps = np.zeros((len(simulators), self.pictures, 2))
        for lap in range(self.pictures):
            for index, simulator in enumerate(simulators):
                clock, processor = time.perf_counter(), os.times().user
                simulator_picture(simulator, protocol)
                laps[index, lap] = time.perf_counter() - clock, os.times().user - processor
        return [(float(np.median(lap[:, 0]) * 1e3), float(lap[:, 1].mean() * 1e3)) for lap in laps]


def simulator_picture(simulator: Any, protocol: SimplerProtocol) -> np.ndarray:
    """Return the policy's picture of a simulator's present state."""
    return draw(simulator, CAMERA, *protocol.picture_px)


def _built(task: int, protocol: SimplerProtocol, in_two_passes: bool) -> Any:
    import torch

    simulator = make_simulator(TWINS[task].env_id, protocol, in_two_passes)
    with quiet():
        simulator.reset(seed=0, options={"reconfigure": True, "episode_id": torch.tensor([0])})
    return simulator


if __name__ == "__main__":
    tyro.cli(SimplerPictures).run()
