"""Interpreters for tests: this one, with the recorded simpler_env in front of what it has installed."""

import shlex
import sys
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded_simpler_env"


def recorded(folder: Path, packages: Path | None = RECORDED, python: str = sys.executable, **variables: str) -> str:
    """Return a program in a folder that runs a Python, by default this one, with other packages and variables."""
    exports = {"PYTHONPATH": str(packages) if packages else "", **variables}
    program = folder / "python"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    program.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(python)} "$@"', ""]))
    program.chmod(0o755)
    return str(program)
