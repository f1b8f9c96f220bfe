"""A way to a robot server: over a websocket, or in this process on a virtual clock."""

from typing import Any, Protocol

import numpy as np


class Link(Protocol):
    """What a session with a robot needs."""

    welcome: dict[str, Any]
    """What the server said of the robot."""

    @property
    def now_ns(self) -> int:
        """Return the time on the client's clock."""
        ...

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a message."""
        ...

    def sleep_until(self, when_ns: int) -> None:
        """Let time pass until then; not at all if it has passed."""
        ...

    def images(self, obs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the pictures of an observation by camera."""
        ...

    def recover(self) -> None:
        """End a fault that the actions brought about, if nobody has to look at the arm first: where it is simulated."""
        ...

    def close(self) -> None:
        """Leave."""
        ...
