"""`vla-bench serve`."""

from dataclasses import dataclass
from pathlib import Path

from vla_bench import registry
from vla_bench.errors import OptionError
from vla_bench.link import dialects
from vla_bench.link.messages import Offer
from vla_bench.link.secret import read_token
from vla_bench.link.server import PolicyServer
from vla_bench.policy import Policy, PrivilegedPolicy


@dataclass(frozen=True)
class Serve:
    """Serve a policy, accelerated or not, over a websocket in openpi's wire format; Ctrl-C stops.

    `vla-bench run --policy remote:ws://HOST:PORT` plays it elsewhere; openpi's own clients can ask it too.
    """

    policy: str
    """Policy to serve, as `name` or `name:argument,key=value`."""

    method: str = "full"
    """Method around it, on this side of the link, as `name` or `name:argument`."""

    host: str = "127.0.0.1"
    """Address to listen at; one that other machines reach needs --token-file."""

    port: int = 8000
    """Port to listen at; 0 takes a free one and prints it."""

    clients: int = 1
    """Clients at once. Each gets a policy of its own, loaded now; queries take turns, or all would seem slower."""

    token_file: Path | None = None
    """File with a secret that clients must know (`Authorization: Api-Key SECRET`)."""

    dialect: str = ""
    """What openpi's clients call the entries of an observation, for example `pi0-libero`; none means our own names."""

    seed: int = 0
    """Seeds the episodes of openpi's clients, which cannot tell one; ours bring their own."""

    def run(self) -> int:
        """Load, print the address, and answer until interrupted."""
        if self.clients < 1:
            raise OptionError("--clients", self.clients, "at least 1")
        if not 0 <= self.port < 2**16:
            raise OptionError("--port", self.port, "a port from 0 to 65535")
        dialect = dialects.dialect(self.dialect) if self.dialect else None
        if dialect is not None and dialect.protocol != "openpi":
            raise OptionError("--dialect", self.dialect, "one of openpi's clients, for example pi0-libero")
        token = read_token(self.token_file)
        policies = [served(self.policy, self.method) for _ in range(self.clients)]
        offer = offered(policies[0], self.method)
        with PolicyServer(
            policies, offer, host=self.host, port=self.port, token=token, dialect=dialect, seed=self.seed
        ) as server:
            print(f"serving {offer.policy} under {offer.method} at {server.address}", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("stopped")
        return 0


def served(policy: str, method: str) -> Policy:
    """Return a policy under a method, ready to be served.

    Raises:
        OptionError: If it reads the simulator's state, which does not travel.
    """
    made = registry.policy(policy)
    if isinstance(made, PrivilegedPolicy):
        raise OptionError("--policy", policy, "one that sees only observations: this one reads the simulator's state")
    return registry.method(method).apply(made)


def offered(policy: Policy, method: str) -> Offer:
    """Return what clients are told about a policy."""
    name = registry.method(method).name
    return Offer(policy.name, name, policy.fingerprint, policy.action_spec, policy.cameras)
