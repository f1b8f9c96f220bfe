"""SIMPLER's Google robot tasks (Li et al. 2024), played by the official `simpler_env` in an interpreter of its own.

protocols     cameras, rates and judgement of the published evaluation, as data
starts        one start, and the sweeps of starts that an evaluation script makes
matching      the sweeps of visual matching
variants      the sweeps of variant aggregation
suites        both suites: names, tasks, horizons; starts no simulator
worker        the script that runs beside simpler_env; imports nothing of vla-bench
process       that script as a process: questions, answers, deadlines, its end
simulator     what is asked of it, in the benchmark's words
environment   the Gymnasium environment
fingerprint   the versions and sources that two runs must share
diagnosis     what `vla-bench doctor` should know
errors        what a user can cause
registration  names for Gymnasium
"""

from vla_bench_envs.simpler_google.protocols import PROTOCOLS
from vla_bench_envs.simpler_google.suites import SUITES

__all__ = ["PROTOCOLS", "SUITES"]
