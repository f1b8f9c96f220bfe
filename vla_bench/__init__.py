"""What an acceleration method for vision-language-action policies costs, and what it saves."""

from typing import TYPE_CHECKING, Any

from vla_bench.plan import RunPlan
from vla_bench.policy import ActionChunk, Method, Policy, PolicyWrapper
from vla_bench.protocol import Protocol, RenderProfile
from vla_bench.registry import register, register_environments
from vla_bench.types import ActionSpec, Cell, EpisodeRecord, Observation, Outcome, Query, Task

if TYPE_CHECKING:
    from vla_bench.dataframes import compare_df, episodes_df, queries_df, summary_df

__version__ = "0.1.0"
__all__ = [
    "ActionChunk",
    "ActionSpec",
    "Cell",
    "EpisodeRecord",
    "Method",
    "Observation",
    "Outcome",
    "Policy",
    "PolicyWrapper",
    "Protocol",
    "Query",
    "RenderProfile",
    "RunPlan",
    "Task",
    "compare_df",
    "episodes_df",
    "queries_df",
    "register",
    "summary_df",
]

register_environments()


def __getattr__(name: str) -> Any:
    """Return a function of `dataframes` when it is asked for: environments that only step need no pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vla_bench import dataframes

    return getattr(dataframes, name)
