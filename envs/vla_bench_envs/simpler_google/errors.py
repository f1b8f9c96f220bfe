"""What a user of the Google robot's suites can cause: what was found, what was expected, what to do."""

from vla_bench.errors import VlaBenchError

VARIABLE = "VLA_BENCH_SIMPLER_PYTHON"
"""Environment variable with the interpreter that has simpler_env."""


class MissingInterpreterError(VlaBenchError):
    """Report that nobody said where simpler_env is installed."""

    def __init__(self) -> None:
        super().__init__(
            f"SIMPLER's Google robot is played by simpler_env in a Python of its own, and {VARIABLE} names none: "
            f"install it as docs/simpler.md says, then export {VARIABLE}=<that environment>/bin/python"
        )


class InterpreterError(VlaBenchError):
    """Refuse what was named as an interpreter and is none."""

    def __init__(self, python: str, problem: str) -> None:
        super().__init__(
            f"{python!r} {problem}: {VARIABLE} must name the python of the environment that has simpler_env, see "
            f"docs/simpler.md"
        )


class MissingSimplerEnvError(VlaBenchError):
    """Report that the interpreter cannot import simpler_env or something below it."""

    def __init__(self, python: str, package: str, cause: str) -> None:
        super().__init__(
            f"{python!r} has no {package!r} ({cause}): install SimplerEnv in that environment as docs/simpler.md says, "
            f"or name another one in {VARIABLE}"
        )


class SimplerEnvVersionError(VlaBenchError):
    """Refuse a simulator whose version is not the suites'."""

    def __init__(self, python: str, package: str, found: str, expected: str) -> None:
        super().__init__(
            f"{python!r} has {package} {found}, the suites are defined on {expected}: install that version there as "
            f"docs/simpler.md says, or name another interpreter in {VARIABLE}"
        )


class WorkerDiedError(VlaBenchError):
    """Report that the simulator's process has ended, with the last it said."""

    def __init__(self, asked: str, end: str, said: str) -> None:
        super().__init__(
            f"simpler_env's process {end}, asked for {asked!r}; the next reset starts another. Its last words: "
            f"{said or 'none'}"
        )


class WorkerTimeoutError(VlaBenchError):
    """Report that the simulator's process did not answer in time and was stopped."""

    def __init__(self, asked: str, timeout_s: float, said: str) -> None:
        super().__init__(
            f"simpler_env's process did not answer {asked!r} within {timeout_s:g} s and was stopped; the next reset "
            f"starts another. Its last words: {said or 'none'}"
        )
