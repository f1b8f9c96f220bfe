"""What can go wrong between a policy and the harness when a network lies between them."""

from vla_bench.errors import VlaBenchError


class WireError(VlaBenchError):
    """Refuse bytes, or a value, that the wire format does not hold."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"the message {found}; expected {expected}: both ends must speak openpi's msgpack format")


class ForeignObservationError(VlaBenchError):
    """Refuse an observation that lacks what the served policy reads."""

    def __init__(self, missing: str, found: list[str], expected: list[str]) -> None:
        super().__init__(
            f"the observation has no {missing!r}; found {', '.join(found) or 'nothing'}, expected "
            f"{', '.join(expected)}: send these names, or start the server with a --dialect, for example pi0-libero"
        )


class UnreachableError(VlaBenchError):
    """Report that nobody answers at an address."""

    def __init__(self, address: str, cause: object) -> None:
        super().__init__(
            f"no policy server answers at {address} ({cause}): start one with 'vla-bench serve', or mend the address"
        )


class RefusedError(VlaBenchError):
    """Report a server that does not let this client in."""

    def __init__(self, address: str, status: int, text: str) -> None:
        advice = {
            401: "give the server's token with token_file=PATH",
            503: "wait for the other client, or start the server with more --clients",
        }
        super().__init__(
            f"{address} refuses the connection with HTTP {status} ({text.strip() or 'no reason given'}): "
            f"{advice.get(status, 'is this the address of a policy server?')}"
        )


class LinkLostError(VlaBenchError):
    """Report a link that broke in an episode."""

    def __init__(self, address: str, cause: object) -> None:
        super().__init__(
            f"the link to {address} is lost ({cause}): this episode cannot go on, since the server has forgotten it; "
            f"the next one connects again"
        )


class AnswerTimeoutError(VlaBenchError):
    """Report a server that takes a message and does not answer."""

    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__(
            f"{address} has not answered within {timeout_s:g} s: look at the server, or allow more with timeout_s=300 "
            f"(a first query that compiles may take minutes)"
        )


class FarEndError(VlaBenchError):
    """Pass on what the server reports as its own error."""

    def __init__(self, address: str, text: str) -> None:
        super().__init__(f"{address} reports an error: {text.strip()}")


class SpeechError(VlaBenchError):
    """Report a server whose messages are not what its protocol promises."""

    def __init__(self, address: str, found: str, expected: str) -> None:
        super().__init__(f"{address} {found}; expected {expected}")


class ChangedServerError(VlaBenchError):
    """Refuse to go on with a server that serves something else than when the run began."""

    def __init__(self, address: str, differences: list[str]) -> None:
        super().__init__(
            f"{address} serves something else than when this run began: {'; '.join(differences)}: "
            f"serve the same again, or begin another run"
        )


class OpenDoorError(VlaBenchError):
    """Refuse to serve beyond this machine without a token."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"--host is {host!r}, which other machines reach, and there is no token; expected a loopback address, or "
            f"--token-file PATH with a secret of at least 16 characters that clients must know"
        )
