"""What two runs must share before they are compared: versions, and the simulator's own sources."""

from dataclasses import asdict, dataclass

from vla_bench.protocol import Protocol
from vla_bench_envs.simpler_google.simulator import Simulator


@dataclass(frozen=True)
class Fingerprint:
    """What the other interpreter says of itself. Nothing is played, so physics and pixels are not hashed."""

    protocol: str
    """Name and hash of the protocol."""

    simulator: str
    """Versions of simpler_env, ManiSkill2_real2sim and SAPIEN: the pinned ones, or there would be no simulator."""

    interpreter: str
    """Versions of Python, NumPy and Gymnasium over there."""

    sources_sha256: str
    """Of all Python files of simpler_env and ManiSkill2_real2sim, whose versions do not move with them."""

    def to_dict(self) -> dict[str, str]:
        """Return plain JSON values."""
        return asdict(self)


def fingerprint(protocol: Protocol) -> Fingerprint:
    """Start the simulator's process and ask what it is.

    Raises:
        MissingInterpreterError: If no interpreter is named.
        InterpreterError: If that is no Python.
        MissingSimplerEnvError: If it has no simpler_env.
        SimplerEnvVersionError: If it has another version.
    """
    simulator = Simulator()
    try:
        return Fingerprint(
            protocol=str(protocol),
            simulator=simulator.description,
            interpreter=simulator.interpreter,
            sources_sha256=simulator.facts["sources_sha256"],
        )
    finally:
        simulator.close()
