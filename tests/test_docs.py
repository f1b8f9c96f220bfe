"""The worked examples of the documentation run as they are, and are as short as they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pictures import save_checkpoint
from recordings import write_dataset

from vla_bench import cli
from vla_bench_policies import methods

DOCS = Path(__file__).parent.parent / "docs"
MOST_LINES = 60
SPEC = "unread:0.75,age=3+refresh:6"

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


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_example_runs_as_it_is(page: str, tmp_path: Path) -> None:
    """Where there are two programs, the second one goes behind the first."""
    code = programs(page)
    assert len(code) == (2 if page == "add_a_token_method.md" else 1)
    assert all(len(part.splitlines()) < MOST_LINES for part in code)
    (tmp_path / "example.py").write_text("\n\n".join(code))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for row in EXAMPLES[page]:
        assert re.search(row, done.stdout), done.stdout


def test_a_token_method_is_one_file_and_no_edit_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The file of the page among the methods that ship is on the command line; without it there is no such method."""
    data, weights = write_dataset(tmp_path / "data"), save_checkpoint(tmp_path / "small.safetensors")
    words = ["replay", "--data", str(data), "--policy", f"reference:{weights},execute=2", "--films", "0"]
    words += ["--out", str(tmp_path / "out"), "--method", SPEC]
    assert cli.main(words) == 2
    assert "no method named 'unread'" in capsys.readouterr().err

    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "unread.py").write_text(programs("add_a_token_method.md")[0])
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])
    assert cli.main(["list"]) == 0
    assert "unread" in capsys.readouterr().out
    assert cli.main(words) == 0
    (directory,) = (tmp_path / "out").iterdir()
    assert pd.read_csv(directory / "summary.csv").set_index("method").loc[SPEC, "distance_mm"] > 0
    asked = pd.read_parquet(directory / "queries.parquet")
    asked = asked[asked["method"] == SPEC]
    assert set(asked["cache rule"]) == {SPEC}
    assert asked["cache effective"].max() > 0.5
