"""What is released is what is said of it: README's table, the folders, the notebooks."""

import ast
import json
import re
from pathlib import Path

import pytest

from vla_bench import tables

ROOT = Path(__file__).parent.parent
RELEASED = ROOT / "results" / "released"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_CELLS = 6


def test_the_readmes_table_is_that_of_the_released_demo() -> None:
    """`vla-bench table results/released/demo` prints it."""
    text = tables.to_text(tables.summarise(tables.read(RELEASED / "demo")))
    assert f"```\n{text}\n```" in (ROOT / "README.md").read_text()


def test_every_released_folder_stands_in_the_readme_of_results_with_its_command() -> None:
    rows = re.findall(r"^\| (`released/.*?) \| (.*) \|$", (ROOT / "results" / "README.md").read_text(), re.MULTILINE)
    named = {name: command for cell, command in rows for name in re.findall(r"`released/(\w+)/`", cell)}
    assert set(named) == {folder.name for folder in RELEASED.iterdir()}
    assert all("`" in command for command in named.values())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_at_most_six_cells_and_defines_nothing(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert len(cells) <= MOST_CELLS
    for cell in cells:
        if cell["cell_type"] == "code":
            defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
            tree = ast.parse("".join(cell["source"]))
            assert not [node for node in ast.walk(tree) if isinstance(node, defined)]
            assert cell["outputs"] == []  # made anew by whoever reads it, and by `make test`


def test_there_are_the_notebooks_of_a_paper() -> None:
    assert {"main_table", "frontier", "ablations", "cache_behaviour"} <= {path.stem for path in NOTEBOOKS}
