"""Films and timelines of episodes on the page: embedded from below the comparison's folder, and from nowhere else."""

import base64
from pathlib import Path
from typing import Any

import pytest

from agents.report import films
from agents.report.films import Film, kind_of, with_films
from agents.report.report import write_report
from agents.report.tradeoff import Comparison, TradeoffPoint
from tests.agents.pages import Page, undrawn  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("undrawn")

GIF = b"GIF89a" + bytes(20)
MP4 = bytes(4) + b"ftypisom" + bytes(20)
TIMELINE = {
    "choices": ["small", "small", "large", "held"],
    "names": ["small", "large"],
    "rewards": [1.0, 1.0, -3.0, 0.5],
}


def point(seed: int = 0, **extras: Any) -> TradeoffPoint:
    return TradeoffPoint("m", "m", seed, 1.0, 10.0, extras=extras)


def page_of(folder: Path, *points: TradeoffPoint) -> Page:
    Comparison("Car-v0", points).write(folder)
    return Page(write_report([folder]).page.read_text(encoding="utf-8"))


def sources(page: Page) -> list[str]:
    """Return what the page shows, without the curves and the cloud, which are empty here."""
    found = [value for name, value in page.attributes if name == "src"]
    return [one for one in found if one != "data:image/png;base64,"]


def test_a_film_is_embedded_beside_the_timeline_of_its_episode(tmp_path: Path) -> None:
    (tmp_path / "runs" / "m-0").mkdir(parents=True)
    (tmp_path / "runs" / "m-0" / "film.gif").write_bytes(GIF)
    page = page_of(tmp_path, point(run="runs/m-0", film="film.gif", timeline=TIMELINE))
    assert sources(page) == [f"data:image/gif;base64,{base64.b64encode(GIF).decode()}"]
    text = "".join(page.text)
    # Two of four steps, one, and one on which a limit repeated the action; rewards sum to −0.5.
    assert all(part in text for part in ("small 50 %", "large 25 %", "held 25 %", "4 steps, return −0.500"))
    assert [tip for tip in page.tips if "steps" in tip] == [
        "small, steps 0 to 1",
        "large, steps 2 to 2",
        "held, steps 3 to 3",
    ]


def test_mp4_plays_as_a_video_and_needs_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(MP4)
    page = page_of(tmp_path, point(film="film.mp4"))
    assert "video" in page.tags
    assert sources(page)[0].startswith("data:video/mp4;base64,")


def test_the_first_seed_with_both_is_shown(tmp_path: Path) -> None:
    (tmp_path / "film.gif").write_bytes(GIF)
    page = page_of(tmp_path, point(0, timeline=TIMELINE), point(1, timeline=TIMELINE, film="film.gif"))
    assert "m, seed 1" in page.text
    assert "m, seed 0" not in page.text


def test_a_timeline_without_a_film_and_no_timeline(tmp_path: Path) -> None:
    assert "One episode: who acted when" in page_of(tmp_path, point(timeline=TIMELINE)).text
    assert "One episode: who acted when" not in page_of(tmp_path, point()).text


@pytest.mark.parametrize(
    "name", ["../secret.gif", "missing.gif", "link.gif", "note.gif", "large.gif", "folder", "a\0b"]
)
def test_what_is_no_film_below_the_folder_is_not_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(films, "LARGEST_FILM", 100)
    folder = tmp_path / "comparison"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret.gif").write_bytes(GIF)
    (folder / "link.gif").symlink_to(tmp_path / "secret.gif")
    (folder / "note.gif").write_text("<svg onload=alert(1)>")
    (folder / "large.gif").write_bytes(GIF + bytes(100))
    made = with_films(Comparison("Car-v0", [point(film=name)]), folder)
    assert made.points[0].extras["film"] == name


@pytest.mark.parametrize("run", ["..", "/"])
def test_a_run_folder_above_the_comparison_is_not_read(run: str, tmp_path: Path) -> None:
    (tmp_path / "film.gif").write_bytes(GIF)
    made = with_films(Comparison("Car-v0", [point(run=run, film="film.gif")]), tmp_path / "inner")
    assert made.points[0].extras["film"] == "film.gif"


def test_films_of_a_page_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "LARGEST_OF_ALL", len(GIF))
    (tmp_path / "film.gif").write_bytes(GIF)
    made = with_films(Comparison("Car-v0", [point(0, film="film.gif"), point(1, film="film.gif")]), tmp_path)
    assert [type(one.extras["film"]) for one in made.points] == [Film, str]


def test_kinds_are_told_by_content() -> None:
    assert [kind_of(content) for content in (GIF, MP4, b"<svg>", b"")] == ["image/gif", "video/mp4", None, None]


def test_a_long_episode_is_cut_and_said_to_be(tmp_path: Path) -> None:
    long = {"choices": ["a", "b"] * 2500, "names": ["a", "b"], "rewards": [0.0] * 5000}
    page = page_of(tmp_path, point(timeline=long))
    assert any("the first 4,000 steps" in text for text in page.text)
    assert sum("steps" in tip for tip in page.tips) == 4000
