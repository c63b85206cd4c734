import base64
import configparser
import hashlib
import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from agents.report import page as page_module
from agents.report.pictures import METHOD_COLOURS, method_colours, plot_curves, plot_tradeoff
from agents.report.report import Report, finding, render_page, terminal_table, write_report
from agents.report.tradeoff import Comparison, Row, TradeoffPoint, summarise
from budget_wrappers.errors import ConfigError
from tests.agents.pages import Page

POLICIES = (
    # label, FLOPs per step, return, extras
    ("small-only", 272.0, 35.0, {"baseline": True}),
    ("asymmetric", 4352.0, 92.5, {"weight": 1e-4, "share_large": 0.5}),
    ("large-only", 8704.0, 93.5, {"baseline": True}),
)


def comparison(seeds: int = 2, curves: bool = True) -> Comparison:
    noise = np.random.default_rng(0).normal(size=(len(POLICIES), seeds))
    points = []
    for index, (label, flops, value, extras) in enumerate(POLICIES):
        for seed in range(seeds):
            total = value + noise[index, seed]
            episodes = [{"return": total, "flops": flops * 100, "length": 100}] * 2
            curve = [(0, 0.0), (1000, total)] if curves else []
            points.append(TradeoffPoint.from_episodes(label, label, seed, episodes, curve, extras))
    settings = {"random_return": -12.5}
    return Comparison("Car<&>-v0", points, "matmul", "budget tradeoff --seeds 2", {"mujoco": "3.11.0"}, settings)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("run")
    comparison().write(folder)
    return write_report([folder])


def summary_rows(seeds: int = 2) -> list[Row]:
    return summarise(comparison(seeds).points)


def png_size(path: Path) -> tuple[int, int]:
    """Read width and height out of the header: 8 bytes of signature, then the IHDR chunk."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


def test_pictures_are_sharp_at_twice_the_width_of_a_readme(report: Report) -> None:
    # 9 inches at 200 dots: 1800, shown at about 900.
    assert png_size(report.picture) == (1800, 1080)
    assert report.curves is not None
    assert png_size(report.curves) == (1800, 1080)
    assert report.cloud is not None
    assert png_size(report.cloud) == (1600, 1280)


def test_picture_is_a_function_of_its_rows(tmp_path: Path) -> None:
    first, second = (plot_tradeoff(summary_rows(), tmp_path / name, "Car").read_bytes() for name in ("a.png", "b.png"))
    assert first == second


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_number_of_seeds_can_be_drawn(seeds: int, tmp_path: Path) -> None:
    assert plot_tradeoff(summary_rows(seeds), tmp_path / "t.png", "Car").is_file()


def test_one_policy_alone_can_be_drawn(tmp_path: Path) -> None:
    assert plot_tradeoff(summarise([TradeoffPoint("m", "m", 0, -3.0, 10.0)]), tmp_path / "t.png", "Car").is_file()


def test_rows_without_a_mean_alone_can_be_drawn(tmp_path: Path) -> None:
    # Random 0 and the reference 50: half of that is 25, and each row's seeds are 100 apart.
    points = [
        TradeoffPoint(name, name, seed, 100.0 * seed, cost)
        for name, cost in (("m", 5.0), ("n", 9.0))
        for seed in (0, 1)
    ]
    Comparison("Car", points, settings={"random_return": 0.0}).write(tmp_path)
    made = write_report([tmp_path])
    assert all(row.split and not row.efficient for row in made.rows)
    assert made.picture.stat().st_size > 10_000


@pytest.mark.parametrize("value", [0.0, -3.0, 1e99, 1e-99])
@pytest.mark.parametrize("flops", [1e-9, 1.0, 1e99])
def test_a_page_of_one_run_of_any_size_can_be_drawn(value: float, flops: float) -> None:
    alone = Comparison("Car", [TradeoffPoint("m", "m", 0, value, flops, curve=[(0, value)])])
    assert "nan" not in render_page(alone, summarise(alone.points), None, None, None).split("<main>")[1]


def test_a_page_of_many_rows_can_be_drawn() -> None:
    points = [TradeoffPoint("m", f"m{i}", 0, float(i % 7), 10.0**i) for i in range(40)]
    page = Page(render_page(Comparison("Car", points), summarise(points), None, None, None))
    assert [len(table.lines) for table in page.tables] == [40, 40, 40]


def test_the_wheel_holds_the_page_s_style_and_script() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg", encoding="utf-8")
    patterns = setup["options.package_data"]["agents.report"].split(", ")
    folder = Path(page_module.__file__).parent
    assert {path.name for pattern in patterns for path in folder.glob(pattern)} == {"page.css", "page.js"}


def test_no_curves_no_picture(tmp_path: Path) -> None:
    assert plot_curves(summarise(comparison(curves=False).points), tmp_path / "c.png", "Car") is None
    assert list(tmp_path.iterdir()) == []


def test_curves_of_seeds_that_stopped_at_different_steps_are_cut_at_the_shortest(tmp_path: Path) -> None:
    points = [
        TradeoffPoint("m", "m", seed, 1.0, 10.0, curve=[(0, 0), (50, 1), (last, 2)])
        for seed, last in ((0, 100), (1, 60))
    ]
    path = plot_curves(summarise(points), tmp_path / "c.png", "Car")
    assert path is not None


def test_colours_follow_methods_not_rows() -> None:
    points = [TradeoffPoint("a", f"a{i}", 0, 1.0, 10.0 + i) for i in range(2)] + [TradeoffPoint("b", "b", 0, 1.0, 20.0)]
    assert method_colours(summarise(points)) == {("a", False): METHOD_COLOURS[0], ("b", False): METHOD_COLOURS[1]}


@pytest.fixture
def page(report: Report) -> Page:
    return Page(report.page.read_text(encoding="utf-8"))


def test_page_is_well_formed(page: Page) -> None:
    assert page.open == []


def test_page_needs_no_other_file_and_runs_its_own_script_alone(page: Page, report: Report) -> None:
    # The cloud; the trade-off and the curves are drawn by the page.
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 1
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert page.tags.count("script") == page.tags.count("style") == 1
    text = report.page.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", text)
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page.policy
    assert "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy


def test_page_says_how_it_was_made_and_escapes_what_it_is_told(page: Page) -> None:
    text = " ".join(page.text)
    for fact in ("budget tradeoff --seeds 2", "mujoco 3.11.0", "0, 1", "Car<&>-v0", "matmul convention", "2 seeds"):
        assert fact in text


def test_page_lists_every_row_and_every_run(page: Page) -> None:
    # 3 policies in the tables of results and of costs, times 2 seeds in that of runs.
    assert [len(table.lines) for table in page.tables] == [3, 3, 6]


def test_terminal_table_shows_saving_share_and_reference() -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(terminal_table(summary_rows(), "Car"))
    output = console.file.getvalue()
    line = next(line for line in output.splitlines() if "asymmetric, λ = 0.0001" in line)
    # 4352/8704 = 1/2 saved; half of the steps on the large one.
    assert line.count("50.0 %") == 2
    assert "4,352" in line
    assert "reference" in next(line for line in output.splitlines() if "large-only" in line)
    assert "2 seeds" in output


def test_finding_names_the_best_of_the_cheaper_methods_with_both_returns() -> None:
    rows = summarise(
        [
            TradeoffPoint("l", "large", 0, 90.0, 100.0, extras={"baseline": True}),
            TradeoffPoint("o", "ours", 0, 85.0, 60.0),
            TradeoffPoint("w", "worse", 0, 80.0, 50.0),
            TradeoffPoint("d", "dearer", 0, 99.0, 120.0),
        ]
    )
    assert finding(rows) == "ours earns 85.0 with 40 % less compute than large, which earns 90.0."


def test_finding_claims_nothing_where_nothing_is_saved() -> None:
    rows = summarise([TradeoffPoint("l", "large", 0, 90.0, 100.0, extras={"baseline": True})])
    assert finding(rows) == "No method under comparison spends less than large."


def test_reports_merge_folders_into_the_folder_that_is_named(tmp_path: Path) -> None:
    whole = comparison()
    for index, point in enumerate(whole.points):
        Comparison(whole.env_id, [point]).write(tmp_path / str(index))
    made = write_report([tmp_path / str(index) for index in range(len(whole.points))], tmp_path / "out")
    assert [row.label for row in made.rows] == ["small-only", "asymmetric", "large-only"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tradeoff.png", "curves.png", "report.html"}


def test_report_of_no_folder_raises() -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        write_report([])
