"""Tables of measurements in a flat folder, written again whenever a row is added: what is interrupted keeps all."""

import csv
import json
import platform
import shlex
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

ERROR_CHARACTERS = 2000
"""Of an error's text that are kept."""


class Ledger:
    """Rows by table, with the machine they were measured on in front of each file."""

    def __init__(self, folder: Path, device: torch.device, facts: dict[str, Any]) -> None:
        """Begin empty tables; `facts` are told beside those of the machine."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._machine = machine_facts(device) | facts
        self.facts: dict[str, Any] = dict(self._machine)
        """Also takes what is found out on the way."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.errors: list[dict[str, str]] = []

    def add(self, table: str, **values: Any) -> None:
        """Add a row to a table and write the table."""
        rows = self.tables.setdefault(table, [])
        rows.append({name: _rounded(value) for name, value in values.items()})
        names = list(dict.fromkeys(name for row in rows for name in row))
        header = "".join(f"# {name}: {value}\n" for name, value in self._machine.items())
        with open(self._folder / f"{table}.csv", "w", newline="") as file:
            file.write(header)
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def tell(self, **facts: Any) -> None:
        """Keep facts and write them, with all errors."""
        self.facts |= facts
        whole = self.facts | {"errors": self.errors}
        (self._folder / "run.json").write_text(json.dumps(whole, indent=1, default=str))

    def attempt(self, what: str, step: Callable[[], Any]) -> Any:
        """Return what a step returns; None if it raises, which is printed and kept, and the run goes on."""
        try:
            return step()
        except Exception as caught:  # noqa: BLE001 - one variant that fails must not cost the others their time
            text = f"{type(caught).__name__}: {caught}"[:ERROR_CHARACTERS]
            self.errors.append({"what": what, "error": text, "where": traceback.format_exc()[-ERROR_CHARACTERS:]})
            print(f"FAILED {what}: {text[:300]}", flush=True)
            self.tell()
            return None

    def print_table(self, table: str, names: tuple[str, ...]) -> None:
        """Print some columns of a table."""
        rows = [[_short(row.get(name, "")) for name in names] for row in self.tables.get(table, [])]
        if not rows:
            return
        widths = [max(len(name), *(len(row[index]) for row in rows)) for index, name in enumerate(names)]
        print(f"\n{table}")
        for row in (list(names), *rows):
            print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return what a measurement depends on besides the code."""
    facts = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), "python": platform.python_version(),
        "torch": torch.__version__, "device": device.type, "processor": platform.processor() or platform.machine(),
    }  # fmt: skip
    for package in ("transformers", "triton"):
        with suppress(ImportError):
            facts[package] = import_module(package).__version__
    if device.type == "cuda":
        own = torch.cuda.get_device_properties(device)
        facts |= {"gpu": own.name, "multiprocessors": str(own.multi_processor_count), "cuda": str(torch.version.cuda)}
        facts["memory_gib"] = f"{own.total_memory / 2**30:.1f}"
        with suppress(Exception):
            pynvml = import_module("pynvml")
            pynvml.nvmlInit()
            facts["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
    return facts


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
