"""What a suite of tasks offers to the benchmark."""

from typing import Protocol as TypingProtocol
from typing import runtime_checkable

import gymnasium

from vla_bench.protocol import Protocol
from vla_bench.types import Task


@runtime_checkable
class Suite(TypingProtocol):
    """A versioned set of tasks and the environment that plays them."""

    @property
    def name(self) -> str:
        """Return name and version, for example `libero-spatial@1`."""
        ...

    @property
    def gym_id(self) -> str:
        """Return the id under which Gymnasium knows the environment, for example `vla_bench/LiberoSpatial-v0`."""
        ...

    @property
    def default_protocol(self) -> str:
        """Return the name of the protocol that is used when none is given."""
        ...

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in standard order, without starting a simulator."""
        ...

    def protocols(self) -> dict[str, Protocol]:
        """Return the presets by name."""
        ...

    def make(self, protocol: Protocol, images: str = "lazy") -> gymnasium.Env:
        """Return an environment; its `reset` takes `options={"task": int, "init_state": int}`."""
        ...

    def fingerprint(self, protocol: Protocol) -> dict[str, str]:
        """Return hashes of physics and pixels, and versions: what must agree before two runs are compared."""
        ...
