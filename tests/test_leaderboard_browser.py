"""The leaderboard in a browser: sorting, filters and CSV, by mouse and keyboard, from a file and without a network."""

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_leaderboard import NASTY, episodes, results, some

from vla_bench.leaderboard import Source, blocks_of, leaderboard_df, render
from vla_bench.submission.evidence import Evidence

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'vla-bench[dev]'")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip


@dataclass
class Visit:
    """A page that is open, and what it did that it should not have."""

    tab: "Page"
    frame: pd.DataFrame
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def methods(self) -> list[str]:
        """Return the methods that are seen, from top to bottom."""
        return self.tab.locator("tr[data-row]:visible th.method").all_inner_texts()

    def header(self, key: str) -> "Locator":
        return self.tab.locator(f"th[data-key={key}]")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["BrowserContext"]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser found: install one of {', '.join(BROWSERS)}, on Debian 'apt-get install chromium'")
    with playwright.sync_playwright() as play:
        profile = tmp_path_factory.mktemp("profile")
        context = play.chromium.launch_persistent_context(
            profile, executable_path=found, args=list(ARGUMENTS), accept_downloads=True
        )
        yield context
        context.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Return a page of two sources, one of which has names that would like to be more than names."""
    evil = [episodes("full", 9, 10), episodes(NASTY, 9, 5), episodes('=1+1,"2"', 9, 6)]
    evil = [one.assign(suite="zoo@1", division="") for one in evil]
    blocks = blocks_of(
        Source(name, found, Evidence.SELF_REPORTED)
        for name, found in (("some", some()), ("evil", results(*evil, processor="CPU 2")))
    )
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(render(blocks))
    return path, leaderboard_df(blocks)


@pytest.fixture
def visit(browser: "BrowserContext", file: tuple[Path, pd.DataFrame]) -> Iterator[Visit]:
    path, frame = file
    opened = Visit(browser.new_page(), frame)
    opened.tab.on("console", lambda message: opened.said.append(message.text))
    opened.tab.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.tab.on("request", lambda request: opened.requests.append(request.url))
    opened.tab.goto(path.as_uri())
    yield opened
    opened.tab.close()
    assert opened.said == []
    assert {url for url in opened.requests if not url.startswith("blob:")} == {path.as_uri()}


def downloaded(visit: Visit, button: str) -> list[dict[str, str]]:
    with visit.tab.expect_download() as download:
        visit.tab.get_by_role("button", name=button).click()
    with Path(download.value.path()).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


BY_RANK = ["quick:1", "same", "full", "lossy", "young", '=1+1,"2"', NASTY, "full"]


def test_the_page_opens_in_the_order_of_ranks_within_blocks(visit: Visit) -> None:
    seen = visit.methods()
    assert seen[:5] == BY_RANK[:5]
    assert sorted(seen[5:]) == sorted(BY_RANK[5:])
    assert visit.header("rank").get_attribute("aria-sort") == "ascending"
    assert visit.tab.get_by_role("status").inner_text() == "8 of 8 rows"
    assert visit.tab.title() == "vla-bench leaderboard"


def test_a_click_sorts_within_blocks_and_a_second_one_turns_round(visit: Visit) -> None:
    visit.header("speedup").get_by_role("button").click()
    assert visit.methods()[:5] == ["lossy", "quick:1", "same", "full", "young"]
    assert visit.header("speedup").get_attribute("aria-sort") == "descending"
    assert visit.header("rank").get_attribute("aria-sort") is None
    visit.header("speedup").get_by_role("button").click()
    assert visit.methods()[:5] == ["same", "quick:1", "lossy", "full", "young"]
    assert visit.header("speedup").get_attribute("aria-sort") == "ascending"


def test_the_keyboard_reaches_and_sorts_every_column(visit: Visit) -> None:
    visit.tab.keyboard.press("Tab")
    assert visit.tab.evaluate("document.activeElement.className") == "skip"
    visit.tab.keyboard.press("Enter")
    assert visit.tab.evaluate("document.activeElement.id") == "table"
    for _ in range(40):
        visit.tab.keyboard.press("Tab")
        if visit.tab.evaluate("document.activeElement.closest('th')?.dataset.key") == "success":
            break
    assert visit.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    visit.tab.keyboard.press("Enter")
    assert visit.header("success").get_attribute("aria-sort") == "descending"
    visit.tab.keyboard.press("Space")
    assert visit.header("success").get_attribute("aria-sort") == "ascending"
    assert visit.methods()[0] == "lossy"


def test_filters_hide_rows_and_the_blocks_that_have_none_left(visit: Visit) -> None:
    visit.tab.get_by_label("Suite").select_option("toy@1")
    assert visit.methods() == BY_RANK[:5]
    assert visit.tab.locator("article.short:visible").count() == 1
    visit.tab.get_by_label("Division").select_option("trained")
    assert visit.methods() == ["young"]
    assert visit.tab.get_by_role("status").inner_text() == "1 of 8 rows"
    visit.tab.get_by_label("Device").select_option("CPU 2")
    assert visit.methods() == []
    assert visit.tab.get_by_role("status").inner_text().startswith("No row is left")
    visit.tab.get_by_role("button", name="Reset").click()
    assert len(visit.methods()) == 8


def test_blocks_can_be_mixed_and_then_say_where_each_row_is_from(visit: Visit) -> None:
    assert visit.header("device").is_hidden()
    visit.tab.get_by_label("Keep blocks apart").uncheck()
    assert visit.header("device").is_visible()
    assert visit.tab.locator("tr.block:visible").count() == 0
    visit.header("speedup").get_by_role("button").click()
    assert visit.methods()[:4] == ["lossy", "quick:1", NASTY, '=1+1,"2"']
    visit.tab.get_by_label("Keep blocks apart").check()
    assert visit.methods()[:2] == ["lossy", "quick:1"]
    assert visit.tab.locator("tr.block:visible").count() == 2


def test_the_csv_holds_what_is_shown_in_its_order(visit: Visit) -> None:
    visit.tab.get_by_label("Division").select_option("lossy")
    visit.header("speedup").get_by_role("button").click()
    found = downloaded(visit, "CSV of shown rows")
    assert [row["method"] for row in found] == visit.methods() == ["lossy", "quick:1", "same"]
    expected = visit.frame.set_index("method").loc[["lossy", "quick:1", "same"]]
    assert [*found[0]] == [*visit.frame.columns]
    for name in ("speedup", "success_low", "decoder_ms_p50", "pairs"):
        assert [float(row[name]) for row in found] == expected[name].astype(float).tolist()
    for name in ("verdict", "suite", "device", "evidence", "commit"):
        assert [row[name] for row in found] == expected[name].tolist()


def test_the_csv_of_all_rows_holds_all_and_no_formula(visit: Visit) -> None:
    visit.tab.get_by_label("Suite").select_option("toy@1")
    found = downloaded(visit, "CSV of all rows")
    assert [row["method"] for row in found] == [name.replace("=1", "'=1") for name in visit.frame["method"]]
    assert [row["rank"] for row in found] == ["" if pd.isna(rank) else str(rank) for rank in visit.frame["rank"]]


def test_nobodys_name_becomes_more_than_text(visit: Visit) -> None:
    assert visit.tab.locator("img").count() == 0
    assert visit.tab.get_by_role("rowheader", name=NASTY).count() == 1
    visit.tab.evaluate(
        "(() => { const one = document.createElement('script'); one.text = 'document.title = 1';"
        "document.body.append(one) })()"
    )
    assert visit.tab.title() == "vla-bench leaderboard"  # the page's policy runs no script but its own
    (refusal,) = visit.said
    assert "Content Security Policy" in refusal
    visit.said.clear()


def test_without_javascript_the_whole_table_is_there(
    browser: "BrowserContext", file: tuple[Path, pd.DataFrame]
) -> None:
    tab = browser.new_page()
    browser.new_cdp_session(tab).send("Emulation.setScriptExecutionDisabled", {"value": True})
    tab.goto(file[0].as_uri())
    assert tab.locator("tr[data-row]:visible").count() == 8
    assert tab.locator("#controls").is_hidden()
    assert tab.locator("thead button").count() == 0
    tab.close()


@pytest.mark.parametrize("width", [360, 1440])
def test_a_screenshot_shows_ink_in_every_row_that_is_in_sight_and_colour_in_the_figures(
    visit: Visit, width: int
) -> None:
    visit.tab.set_viewport_size({"width": width, "height": 900})
    picture = np.asarray(Image.open(io.BytesIO(visit.tab.screenshot(full_page=True))).convert("RGB")).astype(int)
    for line in visit.tab.locator("tr[data-row]:visible th.method").all():
        assert np.ptp(cut(picture, line)) > 100  # letters and paper
    figures = visit.tab.locator(".paper").all()
    assert len(figures) == 4
    for figure in figures:
        seen = cut(picture, figure).reshape(-1, 3)
        assert (np.ptp(seen, axis=1) > 60).sum() > 50  # neither black, grey nor white


def cut(picture: np.ndarray, place: "Locator") -> np.ndarray:
    """Return what a screenshot of the whole page shows of an element."""
    box = place.bounding_box()
    assert box is not None, "the element has no place on the page"
    left, top = max(0, round(box["x"])), round(box["y"])
    return picture[top : top + round(box["height"]), left : left + round(box["width"])]


@pytest.mark.parametrize("width", [360, 1440])
def test_only_the_table_scrolls_sideways(visit: Visit, width: int) -> None:
    visit.tab.set_viewport_size({"width": width, "height": 800})
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width
