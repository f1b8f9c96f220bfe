"""The worked examples of the documentation run as they are, and are as short as they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
MOST_LINES = 60

EXAMPLES = {
    "add_an_environment.md": [r"line@1, policy straight", r"full +5 +0 +1\.00 \["],
    "add_a_token_method.md": [
        r"0\.0 \[141, 141, 141, 141\] 0 first",
        r"0\.5 \[77, 77, 77, 77\] 1 \n",
        r"0\.0 \[141, 141, 141, 141\] 0 rule",
    ],
    "add_a_method.md": [
        r"toy@1, policy toy",
        r" full +15 +0 ",
        r"action-hold:0\.06 +15 +0 ",
        r"action-hold:0\.06\+action-reuse:2 +15 ",
    ],
}


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_example_runs_as_it_is(page: str, tmp_path: Path) -> None:
    code = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert len(code) == 1
    assert len(code[0].splitlines()) < MOST_LINES
    (tmp_path / "example.py").write_text(code[0])
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for row in EXAMPLES[page]:
        assert re.search(row, done.stdout), done.stdout
