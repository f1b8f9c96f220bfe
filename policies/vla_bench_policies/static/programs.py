"""Recording a step once and replaying it: one launch instead of some hundred."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

WARM_UPS = 3
"""Runs before a recording, in which libraries choose kernels and compilers compile."""


class Recorder:
    """Turns steps into programs: CUDA graphs that share one pool of memory, or on a CPU the steps as they are.

    A step must find its inputs and leave its outputs where they always are. It is run for warm-up, so buffers that it
    changes have to be put right afterwards. What a program returns is overwritten when it runs again, and programs of
    one recorder must not run at the same time.
    """

    def __init__(self, device: torch.device, graphs: bool = True) -> None:
        """Record nothing yet; without `graphs` every program runs eagerly."""
        self.device, self.graphs = device, graphs and device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self.graphs else None
        self._stream = torch.cuda.Stream(device) if self.graphs else None

    def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Return a program that does what the step does, and returns what it has returned."""
        if not self.graphs:
            return torch.no_grad()(step)
        assert self._stream is not None
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad():
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    step()
            torch.cuda.current_stream().wait_stream(self._stream)
            torch.cuda.synchronize(self.device)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                found = step()
        torch.cuda.synchronize(self.device)
        return _Replay(graph, found, step)


@dataclass(frozen=True)
class _Replay:
    """A recorded step."""

    graph: Any
    found: Any
    step: Callable[[], Any]
    """Holds the buffers that the graph reads, which must not be freed before it."""

    def __call__(self) -> Any:
        self.graph.replay()
        return self.found
