"""The page of a report in a real browser: two widths, light and dark, sorting, pointing, and no network."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agents.report.report import write_report
from agents.report.tradeoff import Comparison
from benchmarks.browser import NAMES, Browser, BrowserError, browser, find_browser
from tests.agents.pages import seeds

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason=f"no browser to look at the page with: none of {', '.join(NAMES)} is installed"
)

WINDOWS = [(width, scheme) for width in (360, 1280) for scheme in ("light", "dark")]

HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with rows of all kinds, and a label that would like to be a script."""
    folder = tmp_path_factory.mktemp("report")
    curve = {"run": "runs/one", "us_per_action": 20.0, "what": "a long sentence about what this row is and does"}
    points = [
        *seeds("large", 8832.0, [-143.0, -141.0, -142.0], baseline=True, **curve),
        *seeds("small", 208.0, [-500.0, -400.0, -450.0], baseline=True, **curve),
        *seeds("ours, with a rather long name of many words, b = 0.3", 2500.0, [-150.0, -152.0, -151.0], **curve),
        *seeds("split", 700.0, [-150.0, -1190.0, -155.0]),
        *seeds("idle", 100.0, [-1190.0, -1200.0, -1195.0]),
        *seeds(HOSTILE, 3000.0, [-160.0, -161.0, -162.0], what=HOSTILE, run=HOSTILE, machine=HOSTILE),
    ]
    timeline = {"choices": ["a", HOSTILE] * 30, "names": ["a", HOSTILE], "rewards": [-1.0] * 60}
    points += seeds("timed", 1200.0, [-170.0], timeline=timeline)
    command = "budget tradeoff " + "--an-option-without-spaces" * 9
    Comparison("Pendulum-v1", points, command=command, settings={"random_return": -1200.0}).write(folder)
    return write_report([folder]).page


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with ExitStack() as stack:
        try:
            one = stack.enter_context(browser(PROGRAM, tmp_path_factory.mktemp("profile")))
        except (BrowserError, OSError) as error:
            # Some systems have a program of this name that installs a browser when it is run.
            pytest.skip(f"{PROGRAM} does not start as a browser: {error}")
        yield one


@pytest.fixture
def tab(running: Browser, page: Path) -> Iterator[Browser]:
    """Yield the page in a wide window; afterwards nothing was complained about and nothing was fetched."""
    running.complaints.clear()
    running.requests.clear()
    running.open(page, 1280, "light")
    yield running
    assert running.complaints == []
    assert set(running.requests) == {page.resolve().as_uri()}
    assert running.evaluate("document.title") == "What compute buys on Pendulum-v1"


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_nothing_is_wider_than_the_window_and_one_chart_is_shown(
    width: int, scheme: str, tab: Browser, page: Path
) -> None:
    tab.open(page, width, scheme)
    assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    shown = tab.evaluate("Array.from(document.querySelectorAll('.chart'), c => c.getBoundingClientRect().width)")
    assert [part > 0 for part in shown] == [width > 700, width < 700]
    # A chart of text that is scaled down to nothing would fit, too.
    size = tab.evaluate(
        "(() => { const t = Array.from(document.querySelectorAll('.chart .tick')).find("
        "e => e.getBoundingClientRect().width); return t.getBoundingClientRect().height })()"
    )
    assert size >= 10


CONTRAST = """(selector) => {
  const parts = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (rgb) => rgb.map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const found = document.querySelector(selector), style = getComputedStyle(found);
  let behind = found, ground;
  do { ground = getComputedStyle(behind).backgroundColor; behind = behind.parentElement; }
  while (ground === 'rgba(0, 0, 0, 0)' && behind);
  const ink = found instanceof SVGElement ? style.fill : style.color;
  const [one, two] = [light(parts(ink)), light(parts(ground))].sort((a, b) => b - a);
  return (one + .05) / (two + .05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_of_text_has_the_contrast_of_wcag_aa(scheme: str, tab: Browser, page: Path) -> None:
    tab.open(page, 1280, scheme)
    kinds = (".finding", ".findings li", "p.note", "td", "tr.failed td", "thead button", ".what", ".badge.failed")
    kinds += (".badge.front", ".badge.groups", ".index", ".legend span", "dt", "dd", ".chart .tick", ".chart .saved")
    low = {kind: tab.evaluate(f"({CONTRAST})({json.dumps(kind)})") for kind in kinds}
    assert {kind: ratio for kind, ratio in low.items() if ratio < 4.5} == {}
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") is (scheme == "light")


def column(tab: Browser, number: int) -> list[str]:
    return tab.evaluate(f"Array.from(document.querySelectorAll('#results tbody tr'), r => r.cells[{number}].innerText)")


def sorted_by(tab: Browser) -> list[str]:
    return tab.evaluate("Array.from(document.querySelectorAll('#results thead th'), h => h.ariaSort)")


def test_a_click_on_a_heading_sorts_up_and_down_by_value(tab: Browser) -> None:
    heading = "#results thead th:nth-child(3) button"
    assert set(sorted_by(tab)) == {"none"}
    tab.click(heading)
    assert sorted_by(tab)[2] == "ascending"
    up = [text.replace("−", "-").replace(",", "") for text in column(tab, 2)]
    # The row of two groups is sorted by its mean, (−150 − 1190 − 155)/3 = −498: between idle and small.
    assert up == ["-1195", "2 × -152.5\n1 × -1190", "-450.0", "-170.0", "-161.0", "-151.0", "-142.0"]
    tab.click(heading)
    assert sorted_by(tab)[2] == "descending"
    assert [text.replace("−", "-").replace(",", "") for text in column(tab, 2)] == up[::-1]


def test_cells_without_a_value_stay_last_either_way(tab: Browser) -> None:
    for _ in range(2):
        tab.click("#results thead th:nth-child(4) button")
        # One row of one seed, one of two groups.
        assert column(tab, 3)[-2:] == ["–", "–"]


def test_the_keyboard_sorts_and_another_column_takes_over(tab: Browser) -> None:
    tab.evaluate("document.querySelector('#results thead th:nth-child(5) button').focus()")
    tab.press("Enter")
    assert sorted_by(tab)[4] == "ascending"
    tab.press("Tab")
    tab.press("Enter")
    assert sorted_by(tab)[4:6] == ["none", "ascending"]
    tab.click("#results thead th:first-child button")
    assert [text.split("\n")[0] for text in column(tab, 0)] == list("1234567")


def tip(tab: Browser) -> Any:
    return tab.evaluate("(() => { const t = document.getElementById('tip'); return t.hidden ? null : t.innerText })()")


def test_a_point_shows_its_run_while_it_is_pointed_at(tab: Browser) -> None:
    assert tip(tab) is None
    tab.hover(".wide .seed:last-of-type .mark")
    lines = tip(tab).split("\n")
    assert [line.split(" ")[0] for line in lines[1:3]] == ["seed", "return"]
    assert lines[3].endswith("FLOPs per step")
    tab.hover("h1")
    assert tip(tab) is None


def test_the_keyboard_goes_from_point_to_point(tab: Browser) -> None:
    assert tab.evaluate("document.querySelectorAll('.wide .pt[tabindex=\"0\"]').length") == 1
    tab.evaluate("document.querySelector('.wide .pt').focus()")
    first = tip(tab)
    tab.press("ArrowRight")
    assert tip(tab) not in (None, first)
    tab.press("ArrowLeft")
    assert tip(tab) == first
    tab.press("Escape")
    assert tip(tab) is None


@pytest.mark.parametrize("width", [360, 1280])
def test_what_a_point_shows_stays_inside_the_window(width: int, tab: Browser, page: Path) -> None:
    tab.open(page, width, "light")
    chart = ".narrow" if width < 700 else ".wide"
    outside = tab.evaluate(
        f"""Array.from(document.querySelectorAll('{chart} .pt')).filter(point => {{
          point.focus();
          const box = document.getElementById('tip').getBoundingClientRect();
          return box.left < 0 || box.right > innerWidth || box.top < 0 || !box.width;
        }}).length"""
    )
    assert outside == 0


def test_a_hostile_label_is_shown_as_it_is(tab: Browser) -> None:
    labels = tab.evaluate("Array.from(document.querySelectorAll('#results tbody b'), b => b.textContent)")
    assert HOSTILE in labels
    assert tab.evaluate("document.images.length") == 1  # the cloud


def test_a_picture_of_the_window_is_not_blank(tab: Browser) -> None:
    assert len(tab.picture()) > 20_000
