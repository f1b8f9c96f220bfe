"""Plans as files: TOML with the options of `vla-bench run`, by path or by the name under which a package ships one."""

import tomllib
from dataclasses import fields
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from vla_bench.errors import UnknownNameError, VlaBenchError
from vla_bench.plan import RunPlan

GROUP = "vla_bench.plans"
"""Entry points whose values are packages with plan files."""


class PlanFileError(VlaBenchError):
    """Refuse a file that is no plan."""

    def __init__(self, path: Path, problem: str) -> None:
        options = ", ".join(own.name for own in fields(RunPlan))
        super().__init__(f"{path} is no plan: {problem}; expected TOML with some of {options}")


def shipped() -> dict[str, Path]:
    """Return the plans that installed packages ship, by name."""
    folders = [Path(str(files(entry.value))) for entry in entry_points(group=GROUP)]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def read(plan: str) -> dict[str, Any]:
    """Return the options of a plan.

    Args:
        plan: Name of one that ships, or a path that ends in `.toml`.

    Raises:
        UnknownNameError: If none has that name.
        PlanFileError: If the file is missing, cannot be read or has other options.
    """
    known = shipped()
    if not plan.endswith(".toml") and plan not in known:
        raise UnknownNameError("plan", plan, known)
    path = known.get(plan, Path(plan))
    try:
        found = tomllib.loads(path.read_text())
    except OSError as caught:
        raise PlanFileError(path, f"it cannot be read ({caught.strerror})") from caught
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as caught:
        raise PlanFileError(path, f"it is no TOML ({caught})") from caught
    if unknown := sorted(set(found) - {own.name for own in fields(RunPlan)}):
        raise PlanFileError(path, f"it has the option {unknown[0]!r}")
    return found


def expanded(words: list[str]) -> list[str]:
    """Return the words of a command line, `--plan NAME` replaced by the plan's options.

    What is given beside it wins, option by option.

    Raises:
        UnknownNameError: If no plan has that name.
        PlanFileError: If a file is no plan.
    """
    given = iter(words)
    rest, options = [], {}
    for word in given:
        name, equals, value = word.partition("=")
        if name == "--plan":
            options |= read(value if equals else next(given, ""))
        else:
            rest.append(word)
    present = {word.partition("=")[0].replace("_", "-") for word in rest}
    present |= {"--methods"} if "--method" in present else set()
    for name, value in options.items():
        if (option := f"--{name.replace('_', '-')}") not in present:
            rest += [option, *map(str, value if isinstance(value, list) else [value])]
    return rest
