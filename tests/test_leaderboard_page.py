"""The leaderboard's page: whole without JavaScript, broken by nobody's names; and the command that writes it."""

import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import Markup
from test_leaderboard import NASTY, block_of, episodes, page_of, results, some, some_block

from vla_bench import cli, tables
from vla_bench.errors import NoResultsError, OptionError
from vla_bench.leaderboard import LeftOut, leaderboard_df, read_sources, render
from vla_bench.leaderboard.plots import drawable, plots
from vla_bench.leaderboard.sources import EmptyLeaderboardError, UnfitSourceError
from vla_bench.submission.evidence import Evidence, receipt_of
from vla_bench.tables import Results

RELEASED = Path(__file__).parent.parent / "results" / "released"


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(some())


class Outline(HTMLParser):
    """What a browser would build, as far as these tests ask."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        named = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [found for name, found in self.tags if name == tag and named.items() <= found.items()]


def data_of(html: str) -> dict[str, list]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_table_stands_in_the_markup_with_scopes_and_a_caption(page: str) -> None:
    outline = Outline(page)
    assert len(outline.all("caption", id="caption")) == 1
    rows = [found for tag, found in outline.tags if tag == "tr" and "data-row" in found]
    assert [int(found["data-row"]) for found in rows] == [0, 1, 2, 3, 4]
    assert len(outline.all("th", scope="row")) == 5
    headers = [found for tag, found in outline.tags if tag == "th" and found.get("scope") == "col"]
    assert [found["data-key"] for found in headers][:4] == ["rank", "method", "suite", "policy"]
    assert {found["data-key"] for found in headers} <= set(data_of(page)["columns"])
    assert len(outline.all("th", scope="rowgroup")) == 1
    assert "policy: observation to action" in page
    assert "decoder only" in page


def test_the_page_is_one_file_that_asks_for_nothing(page: str) -> None:
    outline = Outline(page)
    assert not outline.all("link")
    assert [found for tag, found in outline.tags if tag not in ("a", "use") and {"src", "href"} & found.keys()] == []
    references = [found["href"] for tag, found in outline.tags if tag in ("a", "use")]
    assert all(reference.startswith("#") for reference in references)
    assert not re.search(r"url\((?!#)", page)
    (policy,) = outline.all("meta", http_equiv="Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none';")


def test_every_id_is_used_once_and_every_reference_leads_somewhere() -> None:
    outline = Outline(page_of(some(), some()))
    ids = [found["id"] for _, found in outline.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for _, found in outline.tags:
        named = [*found.get("aria-labelledby", "").split(), *re.findall(r"#([\w-]+)", found.get("href", ""))]
        named += re.findall(r"url\(#([^)]+)\)", " ".join(found.values()))
        assert set(named) <= set(ids)


def test_rows_of_too_few_pairs_are_marked(page: str) -> None:
    assert page.count('class="few"') >= 2
    assert "too few (&lt;8)" in page
    frame = leaderboard_df([some_block()])
    assert frame.loc[frame["too_few_pairs"].astype(bool), "method"].tolist() == ["young"]


def test_plots_say_in_words_what_they_show(page: str) -> None:
    labels = [found["aria-label"] for found in Outline(page).all("div", role="img")]
    assert [label.partition(".")[0] for label in labels] == [
        "Success against policy time per control step",
        "Where a query's policy time goes",
    ]
    assert "lossy 60 % at 4 ms; quick:1 100 % at 5 ms; " in labels[0]
    assert "full: prefill 24.0; " in labels[1]


def test_the_same_results_make_the_same_bytes() -> None:
    one, two = page_of(some()), page_of(some())
    assert one == two
    assert "<dc:date>" not in one


@pytest.mark.parametrize(
    "name", [NASTY, "<!--<script>", "a\"b'c&d", "$\\frac{", "_hidden", "\x00\u202e", "&amp;{{ 7*7 }}"]
)
def test_no_name_breaks_out_of_the_page(name: str) -> None:
    played = [episodes("full", 9, 10), episodes(name, 9, 5, division=name)]
    html = page_of(results(*(one.assign(suite=name, policy=name) for one in played), processor=name, protocol=name))
    outline, plain = Outline(html), Outline(page_of(results(episodes("full", 9, 10), episodes("other", 9, 5))))
    for tag in ("script", "img", "style", "svg"):
        assert len(outline.all(tag)) == len(plain.all(tag))
    assert not [found for _, found in outline.tags if any(key.startswith("on") for key in found)]
    data = data_of(html)
    assert [row[data["columns"].index("method")] for row in data["rows"]].count(name) == 1
    assert "49" not in outline.text


def test_figures_take_any_name_and_keep_names_apart() -> None:
    long = "x" * 60
    names = drawable([f"{long}1", f"{long}2", "_a", "a$b$", "tab\t"])
    assert len(set(names.values())) == 5
    assert max(map(len, names.values())) < 40
    assert (names["_a"], names["a$b$"], names["tab\t"]) == (" _a", r"a\$b\$", "tab\N{REPLACEMENT CHARACTER}")
    drawn = plots(block_of(results(episodes("full", 9, 10), episodes(NASTY, 9, 5))), "p")
    assert all(isinstance(plot.svg, Markup) and "<img" not in plot.svg for plot in drawn)


def test_what_was_left_out_is_named_on_the_page() -> None:
    html = render([some_block()], [LeftOut("elsewhere", "found <nothing>")])
    assert "<b>elsewhere</b> (found &lt;nothing&gt;)." in html


def exported(found: Results, directory: Path) -> Path:
    tables.export(found, directory)
    return directory


def test_real_results_make_a_page(tmp_path: Path, capsys) -> None:
    out = tmp_path / "page" / "leaderboard.html"
    assert (
        cli.main(["leaderboard", *(str(RELEASED / name) for name in ("main", "reference_cpu")), "--out", str(out)]) == 0
    )
    said = capsys.readouterr().out
    asked_often = "main, libero-object@1, policy reference-oft:execute=2,ensemble"
    assert f"{asked_often}: None of the 19 methods is shown to be faster" in said
    assert said.endswith(f"{out}\n")
    html = out.read_text()
    assert str(RELEASED) not in html
    assert len(data_of(html)["rows"]) == 20 + 3 + 2
    again = tmp_path / "again.html"
    cli.main(["leaderboard", *(str(RELEASED / name) for name in ("main", "reference_cpu")), "--out", str(again)])
    assert again.read_bytes() == out.read_bytes()


def test_the_margin_is_in_points_and_stands_on_the_page(tmp_path: Path) -> None:
    source, out = exported(some(), tmp_path / "some"), tmp_path / "page.html"
    assert cli.main(["leaderboard", str(source), "--out", str(out), "--margin", "5"]) == 0
    assert "lower by less than 5 points" in out.read_text()


def test_a_source_without_the_reference_is_refused_by_name(tmp_path: Path, capsys) -> None:
    source = exported(results(episodes("quick", 9, 5)), tmp_path / "lonely")
    with pytest.raises(UnfitSourceError) as caught:
        read_sources([source])
    assert str(caught.value) == (
        f"{source} cannot stand on the leaderboard: found no episode of 'full' in toy@1, policy toy, only of quick; "
        f"expected 'full' on the same starts, which speed-up and difference are relative to: add it to the run with "
        f"--method full, or leave out what cannot be shown with --skip-unfit, which the page then names"
    )
    out = tmp_path / "page.html"
    assert cli.main(["leaderboard", str(source), "--out", str(out)]) == 2
    assert not out.exists()


def test_unfit_sources_can_be_left_out_but_not_without_a_word(tmp_path: Path, capsys) -> None:
    lonely = exported(results(episodes("quick", 9, 5)), tmp_path / "lonely")
    mixed = results(episodes("full", 9, 10), episodes("quick", 9, 5, run="other"))
    runs = pd.concat([mixed.runs, mixed.runs.assign(run="other", processor="CPU 2")])
    whole = exported(some(), tmp_path / "whole")
    unfit = [lonely, exported(replace(mixed, runs=runs), tmp_path / "mixed")]
    with pytest.raises(
        UnfitSourceError, match=r"mixed cannot stand .* found runs of several conditions .*processor: CPU"
    ):
        read_sources([unfit[1]])
    out = tmp_path / "page.html"
    words = ["leaderboard", *map(str, (*unfit, whole)), "--out", str(out), "--skip-unfit"]
    assert cli.main(words) == 0
    said = capsys.readouterr().err
    assert "left out lonely: no episode of 'full' in toy@1" in said
    assert "left out mixed: runs of several conditions" in said
    assert "<b>lonely</b> (no episode of &#39;full&#39;" in out.read_text()
    with pytest.raises(EmptyLeaderboardError) as caught:
        read_sources([lonely], skip_unfit=True)
    assert str(caught.value) == (
        "no row is left: all 1 sources were left out by --skip-unfit; expected at least one that can be shown: run the "
        "command without --skip-unfit to read what is wrong with the first"
    )


def test_mistakes_in_the_command_say_what_to_do(tmp_path: Path) -> None:
    source = exported(some(), tmp_path / "some")
    with pytest.raises(NoResultsError, match=r"nowhere does not exist: make results with"):
        read_sources([tmp_path / "nowhere"], skip_unfit=True)
    with pytest.raises(OptionError, match=r"RESULTS is '.*some'; expected each source once"):
        read_sources([source, source])
    for words, found in (
        ([str(source), "--out", str(tmp_path / "page.pdf")], "--out is .*expected a name that ends in .html"),
        ([str(source), "--margin", "0.02"], "--margin is 0.02; expected percentage points"),
    ):
        assert cli.main(["leaderboard", *words]) == 2, found


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    sources, _ = read_sources([exported(some(), tmp_path / name / "run") for name in ("a", "b")])
    assert [source.name for source in sources] == ["a/run", "b/run"]


def test_the_evidence_is_what_a_receipt_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "read", lambda path: some())
    pack = tmp_path / "pack.zip"
    pack.write_bytes(b"as if")
    assert read_sources([pack])[0][0].evidence is Evidence.SELF_REPORTED
    said = {"evidence": "replayed", "pack_sha256": hashlib.sha256(b"as if").hexdigest(), "found": []}
    receipt_of(pack).write_text(json.dumps(said))
    (source,), _ = read_sources([pack])
    assert (source.name, source.evidence) == ("pack.zip", Evidence.REPLAYED)


def test_the_frame_makes_the_csv_that_the_page_offers() -> None:
    block = some_block()
    data = data_of(render([block]))
    frame = leaderboard_df([block])
    text = io.StringIO()
    csv.writer(text).writerows([data["columns"], *data["rows"]])
    read = pd.read_csv(io.StringIO(text.getvalue()))
    assert read["method"].tolist() == frame["method"].tolist()
    assert read["speedup"].tolist()[:2] == [2.0, 1.0]
