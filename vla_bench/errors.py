"""Everything a user can cause, as exceptions that say what was found, what was expected and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class VlaBenchError(Exception):
    """Report a mistake that the user can mend; the command line prints it without a traceback."""


class UnknownNameError(VlaBenchError):
    """Refuse a name that nothing is registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"no {kind} named {name!r}.{hint} Known: {', '.join(names) or 'none'}")


class MissingPackageError(VlaBenchError):
    """Refuse what needs a Python package that cannot be imported."""

    def __init__(self, name: str, package: str, cause: Exception, extra: str = "libero") -> None:
        super().__init__(
            f"{name!r} needs {package!r}, which cannot be imported ({type(cause).__name__}: {cause}): "
            f"pip install 'vla-bench[{extra}]', or run 'vla-bench doctor'"
        )


class SpecError(VlaBenchError):
    """Refuse a policy or method specification such as `action-reuse:two`."""

    def __init__(self, spec: str, problem: str, example: str) -> None:
        super().__init__(f"cannot read {spec!r}: {problem}; expected something like {example!r}")


class ActionSpecMismatchError(VlaBenchError):
    """Refuse to run a policy whose actions mean something else than the environment's."""

    def __init__(self, policy: str, environment: str, differences: Iterable[str]) -> None:
        super().__init__(
            f"{policy!r} and {environment!r} disagree on what an action means: {'; '.join(differences)}: "
            f"convert in the policy's adapter; the benchmark never guesses"
        )


class ActionError(VlaBenchError):
    """Refuse an action that an environment cannot apply."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"the action is {found}; expected {expected}: look at what the policy's `act` returns")


class OptionError(VlaBenchError):
    """Refuse an option of `reset`, of a constructor or of a command."""

    def __init__(self, option: str, found: object, expected: str) -> None:
        super().__init__(f"{option} is {found!r}; expected {expected}")


class NotResetError(VlaBenchError):
    """Refuse to step an environment whose episode has not begun or has ended."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the episode {state}: call reset() before step()")


class StaleImageError(VlaBenchError):
    """Refuse to render an image of a moment that has passed."""

    def __init__(self, camera: str) -> None:
        super().__init__(
            f"the image of {camera!r} was not read before the next step, and the moment it shows has passed: "
            f"read it earlier, or make the environment with images='eager', which renders at every step"
        )


class MissingGraphicsError(VlaBenchError):
    """Report that no off-screen OpenGL context can be made."""

    def __init__(self, backend: str, cause: object) -> None:
        super().__init__(
            f"no off-screen OpenGL context with MUJOCO_GL={backend!r} ({cause}): unset MUJOCO_GL, and on Debian or "
            f"Ubuntu run 'apt-get install libegl1 libegl-mesa0 libgl1 libopengl0 libgl1-mesa-dri libglib2.0-0' for "
            f"software rendering (MUJOCO_GL=osmesa needs libosmesa6)"
        )


class PinnedVersionError(VlaBenchError):
    """Refuse a package whose version is part of the protocol."""

    def __init__(self, package: str, found: str, expected: str) -> None:
        super().__init__(
            f"{package} {found} is installed, the protocol is defined on {expected} (other versions move objects "
            f"after reset, see docs/mujoco.md): pip install '{package}=={expected}'"
        )


class JournalError(VlaBenchError):
    """Report a journal that cannot be read."""

    def __init__(self, path: object, line: int, problem: str) -> None:
        super().__init__(
            f"{path}, line {line}: {problem}; only the last line of a journal may be cut (it is dropped when the run "
            f"resumes): restore the file, or delete that line to run its episode again"
        )


class ResultsWriteError(VlaBenchError):
    """Report that results cannot be written; what was written before is safe."""

    def __init__(self, path: object, cause: OSError) -> None:
        super().__init__(
            f"cannot write {path} ({cause.strerror}): every finished episode before this one is safe on disk; "
            f"make room or choose another place with --results, then run the same command again to go on"
        )


class ResumeError(VlaBenchError):
    """Refuse to add episodes to a run that was made under other conditions."""

    def __init__(self, directory: object, differences: Iterable[str]) -> None:
        super().__init__(
            f"{directory} holds episodes made under other conditions: {'; '.join(differences)}: "
            f"write to another directory with --results, or restore the conditions"
        )


class RunLockedError(VlaBenchError):
    """Refuse a second process that would write to the same run."""

    def __init__(self, directory: object, holder: str) -> None:
        super().__init__(f"{directory} is being written by another process ({holder}): wait for it, or stop it")


class RunAbortedError(VlaBenchError):
    """Report a run that was stopped because nothing works."""

    def __init__(self, errors: int, last: str) -> None:
        super().__init__(f"stopped: {errors} episodes in a row ended in an error; the last: {last}")


class NoResultsError(VlaBenchError):
    """Report a results directory in which there is nothing to show."""

    def __init__(self, path: object, what: str) -> None:
        super().__init__(f"{path} {what}: make results with 'vla-bench run', or name a directory that it wrote")


class MixedRunsError(VlaBenchError):
    """Refuse to compare episodes that were made under conditions that move pixels or physics."""

    def __init__(self, differences: Iterable[str]) -> None:
        super().__init__(
            f"these runs cannot stand in one comparison: {'; '.join(differences)}: "
            f"run them again under one protocol on one machine, or show them in separate tables"
        )


class ContractError(VlaBenchError):
    """Report that an environment, a policy or a method breaks its contract."""

    def __init__(self, subject: str, promise: str, found: str) -> None:
        super().__init__(f"{subject} breaks the contract '{promise}': {found}")
