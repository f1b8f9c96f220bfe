"""What an acceleration method for vision-language-action policies costs, and what it saves."""

from vla_bench.plan import RunPlan
from vla_bench.policy import ActionChunk, Method, Policy, PolicyWrapper
from vla_bench.protocol import Protocol, RenderProfile
from vla_bench.registry import register, register_environments
from vla_bench.types import ActionSpec, Cell, EpisodeRecord, Observation, Outcome, Query, Task

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
    "register",
]

register_environments()
