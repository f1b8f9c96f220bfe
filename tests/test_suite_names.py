"""Benchmark and policies are told what a suite is by its tasks and protocol; its name decides nothing outside envs/."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from vla_bench import registry

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for part in ("vla_bench", "policies") for path in (ROOT / part).rglob("*.py"))
FAMILIES = sorted({name.partition("@")[0].partition("-")[0] for name in registry.suites()})
"""What suites' names begin with: libero, simpler, tabletop."""

RECIPES = {"simpler", "simpler-close", "simpler-long", "simpler-commanded"}
"""Trainings that are named for what was collected; `--preset` chooses them, no suite's name does."""

CUTTING = {"startswith", "endswith", "removeprefix", "removesuffix", "split", "partition", "match", "search"}
"""Methods and functions that look at a part of a string."""


def deciding(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string that something is compared with, looked up by or cut off at."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        match node:
            case ast.Compare():
                parts = [node.left, *node.comparators]
            case ast.Call(func=ast.Attribute(attr=name)) if name in CUTTING:
                parts = [*node.args]
            case ast.Subscript():
                parts = [node.slice]
            case ast.Dict():
                parts = [*node.keys]
            case ast.MatchValue():
                parts = [node.value]
        for leaf in (leaf for part in parts if part is not None for leaf in ast.walk(part)):
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                yield leaf.lineno, leaf.value


def names_a_suite(text: str) -> bool:
    return any(text == family or text.startswith((f"{family}-", f"{family}_", f"{family}@")) for family in FAMILIES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_suite_is_told_from_another_by_its_name(path: Path) -> None:
    found = [(line, text) for line, text in deciding(ast.parse(path.read_text())) if names_a_suite(text)]
    assert [one for one in found if path.parent.name != "training" or one[1] not in RECIPES] == []


@pytest.mark.parametrize(
    "code",
    [
        "if suite == 'libero-object@1': ...",
        "suite.startswith('simpler')",
        "HORIZONS = {'libero-spatial@1': 220}",
        "HORIZONS['simpler-widowx@1']",
        "if suite in ('tabletop-sim@1', other): ...",
        "match suite:\n    case 'simpler-widowx@1': ...",
    ],
)
def test_such_a_branch_would_be_seen(code: str) -> None:
    assert [text for _, text in deciding(ast.parse(code)) if names_a_suite(text)]


@pytest.mark.parametrize("code", ["suite: str = 'libero-object@1'", "print('libero-object@1')"])
def test_a_default_or_a_text_is_no_branch(code: str) -> None:
    assert not list(deciding(ast.parse(code)))
