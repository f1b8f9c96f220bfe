"""How a plan is played on a cluster."""

from dataclasses import dataclass, field

from vla_bench.parallel.crew import CrewOptions


@dataclass(frozen=True)
class FleetOptions:
    """Crews of workers on the nodes of a cluster."""

    address: str = "auto"
    """Of the Ray cluster, `host:port`; `auto` finds the one that this machine belongs to."""

    crews: int = 1
    """Crews, each on one node, with its own policy; the nodes with most room are taken first."""

    gpus: float = 0.0
    """GPUs that each crew is given; a fraction lets crews share one."""

    crew: CrewOptions = field(default_factory=CrewOptions)
    """Of each crew; it is given a processor for every worker."""

    @property
    def workers(self) -> int:
        """Return the environments of all crews."""
        return self.crews * self.crew.workers
