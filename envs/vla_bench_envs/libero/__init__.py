"""LIBERO and LIBERO-PRO under versioned protocols, on one pinned physics."""

from vla_bench_envs.libero.protocols import PROTOCOLS
from vla_bench_envs.libero.startup import prepare_process
from vla_bench_envs.libero.suites import SUITES

__all__ = ["PROTOCOLS", "SUITES"]

prepare_process()  # before anything below this package imports MuJoCo, which chooses its OpenGL library only once
