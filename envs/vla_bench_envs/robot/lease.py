"""Who may move the robot: one client at a time, as long as it says that it lives.

A lease ends by heartbeat, not by a closed socket: a half-open connection would lock everybody out. It belongs to the
session that took it, so that its text alone, overheard or guessed, moves nothing.
"""

import secrets

from vla_bench_envs.robot.limits import Limits


class Lease:
    """At most one holder, its last heartbeat, and when it is lost."""

    def __init__(self, limits: Limits) -> None:
        """Begin without a holder."""
        self._lost_ns = limits.heartbeat_lost_ms * 1e6
        self._expired_ns = limits.lease_ttl_ms * 1e6
        self._text = ""
        self._beaten_ns = 0
        self.holder = ""
        """Session that holds it; empty if none does."""

    def acquire(self, session: str, now_ns: int) -> str | None:
        """Return the lease for a session, or None if another one holds it."""
        if self.holder and self.holder != session and not self.expired(now_ns):
            return None
        self.holder, self._text, self._beaten_ns = session, secrets.token_hex(16), now_ns
        return self._text

    def held_by(self, session: str, text: str) -> bool:
        """Return whether this session holds the lease that it shows."""
        return bool(self.holder) and session == self.holder and secrets.compare_digest(self._text, _ascii(text))

    def beat(self, session: str, text: str, now_ns: int) -> bool:
        """Note a heartbeat of the holder; return whether it was the holder's."""
        if not self.held_by(session, text):
            return False
        self._beaten_ns = now_ns
        return True

    def lost(self, now_ns: int) -> bool:
        """Return whether there is a holder that has been silent for too long to go on moving."""
        return bool(self.holder) and now_ns - self._beaten_ns > self._lost_ns

    def expired(self, now_ns: int) -> bool:
        """Return whether there is a holder that has been silent for so long that others may take over."""
        return bool(self.holder) and now_ns - self._beaten_ns > self._expired_ns

    def drop(self) -> None:
        """Free the lease."""
        self.holder = self._text = ""


def _ascii(text: str) -> str:
    return text if text.isascii() else ""
