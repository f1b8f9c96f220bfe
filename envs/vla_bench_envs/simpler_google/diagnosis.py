"""What `vla-bench doctor` should know about SIMPLER's Google robot."""

import os
from collections.abc import Iterator

from vla_bench.doctor import Finding
from vla_bench.errors import VlaBenchError
from vla_bench_envs.simpler_google.errors import VARIABLE
from vla_bench_envs.simpler_google.simulator import Simulator

SUBJECT = "simpler, google robot"

HELLO_S = 120.0
"""How long importing simpler_env may take."""


def diagnose() -> Iterator[Finding]:
    """Yield one finding on the interpreter that has simpler_env; all is well where none is named.

    Nothing is built, so a missing GPU shows at the first reset only.
    """
    if not os.environ.get(VARIABLE):
        yield Finding(SUBJECT, True, f"not installed ({VARIABLE} names no interpreter, see docs/simpler.md)")
        return
    try:
        simulator = Simulator(timeout_s=HELLO_S)
    except VlaBenchError as caught:
        yield Finding(SUBJECT, False, str(caught))
        return
    simulator.close()
    yield Finding(SUBJECT, True, f"{simulator.description} on {simulator.interpreter}; {simulator.process.python}")
