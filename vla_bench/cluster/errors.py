"""What a cluster can refuse."""

from collections.abc import Mapping, Sequence

from vla_bench.errors import VlaBenchError


class MissingRayError(VlaBenchError):
    """Refuse `--cluster` without Ray."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"--cluster needs 'ray', which cannot be imported ({cause}): pip install 'vla-bench[ray]'")


class NoClusterError(VlaBenchError):
    """Report that nobody answers at a cluster's address."""

    def __init__(self, address: str, cause: Exception) -> None:
        first = str(cause).partition("\n")[0]
        super().__init__(
            f"no Ray cluster at {address!r} ({first}): start one with 'ray start --head', and on every other node "
            f"'ray start --address HOST:6379', or name another address"
        )


class NoRoomError(VlaBenchError):
    """Report that no node of a cluster can take a crew."""

    def __init__(self, wanted: Mapping[str, float], found: Mapping[str, float], waited_s: float) -> None:
        free = _listed({key: found.get(key, 0) for key in wanted})
        super().__init__(
            f"no node had room for a crew with {_listed(wanted)} within {waited_s:.0f} s; the whole cluster has {free} "
            f"free: choose other --workers or --gpus, or add nodes"
        )


class OtherNodeError(VlaBenchError):
    """Refuse a node on which episodes would be played under other conditions."""

    def __init__(self, node: str, differences: Sequence[str]) -> None:
        super().__init__(
            f"node {node} would play under other conditions: {'; '.join(differences)}: a run needs nodes of one kind "
            f"with one installation; leave this one out, or play its part with --shard as a run of its own"
        )


class LostCrewError(VlaBenchError):
    """Report that crews are lost before they can begin."""

    def __init__(self, times: int, last: str) -> None:
        super().__init__(
            f"{times} crews in a row were lost before they could begin; the last: {last}: see the logs of Ray, or play "
            f"on one node with --workers alone to see why"
        )


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{count:g} {name}" for name, count in resources.items())
