"""What a user of an evaluation can cause: what was found, what was expected, what to do."""

from vla_bench.errors import VlaBenchError


class PlanFolderError(VlaBenchError):
    """Refuse a folder that holds no plan, or one already."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"{path} {problem}: 'vla-bench robot plan --out FOLDER' makes a plan in a folder of its own")


class PlanChangedError(VlaBenchError):
    """Refuse a plan that is not the one that was registered or played."""

    def __init__(self, where: object, found: str, expected: str) -> None:
        super().__init__(
            f"{where} is of the plan {found[:12]}, expected {expected[:12]}: a plan is not changed once it is made; "
            f"restore plan.json, or make another plan in another folder"
        )


class SealBrokenError(VlaBenchError):
    """Refuse a map of methods that is not the one that the plan commits to."""

    def __init__(self, path: object, found: str, expected: str) -> None:
        super().__init__(
            f"{path} has the hash {found[:12]}, the plan commits to {expected[:12]}: which method is which cannot be "
            f"known; restore the file that 'vla-bench robot plan' wrote"
        )


class UnfinishedError(VlaBenchError):
    """Refuse to unseal while labels can still be given."""

    def __init__(self, n_left: int, n_trials: int) -> None:
        super().__init__(
            f"{n_left} of {n_trials} trials are not labelled, and who knows the methods cannot label any more: finish "
            f"with 'vla-bench robot run', or give the rest up with --partial"
        )


class OperatorNeededError(VlaBenchError):
    """Refuse to play without a person what only a person can place or judge."""

    def __init__(self, driver: str, missing: str) -> None:
        super().__init__(
            f"the robot {driver!r} cannot {missing} by itself: run without --auto, and open the page that is printed"
        )


class DryRunError(VlaBenchError):
    """Refuse to evaluate a robot that is sent nothing."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"the robot server at {url} is in a dry run, in which nothing moves: start it with 'vla-bench robot serve "
            f"--live'"
        )


class RaterError(VlaBenchError):
    """Refuse a second rater who is the first one, or has no name."""

    def __init__(self, rater: str, problem: str) -> None:
        super().__init__(f"the rater {rater!r} {problem}: give another name with --rater, such as second")
