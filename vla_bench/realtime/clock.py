"""A clock of its own: milliseconds are owed, and paid in whole control steps."""

from dataclasses import dataclass

SLACK_MS = 1e-6
"""What may be missing from a whole control step because of rounding."""


@dataclass
class VirtualClock:
    """Turns the time of answers into control steps that pass meanwhile.

    What is left of a step is owed by the next answer: 50 answers of 49 ms cost 49 control steps of 50 ms.
    """

    period_ms: float
    """Of the control loop."""

    owed_ms: float = 0.0

    def steps(self, ms: float) -> int:
        """Return the control steps that pass during an answer of so many ms."""
        self.owed_ms += ms
        passed = int((self.owed_ms + SLACK_MS) // self.period_ms)
        self.owed_ms = max(0.0, self.owed_ms - passed * self.period_ms)
        return passed
