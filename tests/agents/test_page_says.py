"""The sentences on a page agree with its table, for every kind of row that needs care."""

from dataclasses import replace
from pathlib import Path

import pytest

from agents.report.report import write_report
from agents.report.tradeoff import Comparison, TradeoffPoint
from tests.agents.pages import Page, page_of, seeds, undrawn  # noqa: F401 (a fixture)

LARGE = seeds("large", 1000.0, [220.0, 221.0, 222.0, 223.0, 224.0], baseline=True)
"""Mean 222, s² = 2.5: 222 ± 1.96, by Student's of five."""


pytestmark = pytest.mark.usefixtures("undrawn")


def results(page: Page, label: str) -> dict[str, str]:
    """Return the row of ``label`` in the table of results."""
    return page.tables[0].row(label)


def test_a_dominated_method_is_named_with_the_baseline_that_dominates_it(tmp_path: Path) -> None:
    points = [*LARGE, *seeds("small", 100.0, [230.0, 231.0], baseline=True), *seeds("ours", 200.0, [200.0, 202.0])]
    page = page_of(points, tmp_path)
    # (230 + 231)/2 = 230.5 for 100 of 1000 FLOPs; (200 + 202)/2 = 201 for 200.
    small, ours = results(page, "small"), results(page, "ours")
    assert (small["mean return"], small["saved / step"]) == ("230.5", "90.0 %")
    assert (ours["mean return"], ours["saved / step"]) == ("201.0", "80.0 %")
    assert "The baseline small earns 230.5 with 90 % less compute than large, which earns 222.0." in page.sentences
    assert (
        "ours, the best method under comparison, earns 201.0 with 80 % less compute, dominated by small"
        in page.sentences
    )
    assert "on the front" in small["row"]
    assert "on the front" not in ours["row"]


def test_overlapping_intervals_are_not_told_apart(tmp_path: Path) -> None:
    # 218 … 226 and 220.04 … 223.96 overlap: 222 − 2.7764 · √(10/5) = 218.07, 222 + 3.93 = 225.93.
    page = page_of([*LARGE, *seeds("ours", 300.0, [218.0, 220.0, 222.0, 224.0, 226.0])], tmp_path)
    ours, large = results(page, "ours"), results(page, "large")
    assert ours["95 % interval"] == "218.1 … 225.9"
    assert large["95 % interval"] == "220.0 … 224.0"
    assert "cannot be told apart from that of large (over their seeds)" in page.sentences
    apart = page_of([*LARGE, *seeds("ours", 300.0, [118.0, 120.0, 122.0, 124.0, 126.0])], tmp_path)
    assert results(apart, "ours")["95 % interval"] == "118.1 … 125.9"
    assert "told apart" not in apart.sentences


def test_two_seeds_are_a_range_and_one_is_a_dash(tmp_path: Path) -> None:
    points = [*seeds("large", 1000.0, [220.0, 224.0], baseline=True), *seeds("ours", 300.0, [210.0])]
    page = page_of(points, tmp_path)
    assert results(page, "large")["range of 2 seeds"] == "220.0 … 224.0"
    assert results(page, "ours")["range of 2 seeds"] == "–"
    assert "95" not in " ".join([*page.findings, *page.tables[0].headings])


@pytest.mark.parametrize("what", ["return", "FLOPs"])
def test_two_groups_of_seeds_have_no_mean_in_sentence_table_or_chart(what: str, tmp_path: Path) -> None:
    points = {
        # Random −1,200 and the reference −142: half of 1,058 is 529, and the seeds are 1,050 apart.
        "return": seeds("ours", 500.0, [-150.0, -1200.0]),
        # As stored: 1,684 and 9,306 of 8,832 FLOPs are 86 % of the reference's apart.
        "FLOPs": seeds("ours", [1684.0, 9306.0], [-142.3, -143.1]),
    }[what]
    large = seeds("large", 8832.0, [-143.0, -141.0], baseline=True)
    page = page_of([*large, *points], tmp_path, random_return=-1200.0)
    ours = results(page, "ours")
    assert "two groups of seeds" in ours["row"]
    assert "The seeds of no method that spends less than large agree." in page.sentences
    if what == "return":
        assert ours["mean return"] == "1 × −150.0\n1 × −1,200"
        assert ours["range of 2 seeds"] == "–"
        assert "ours has two groups of seeds: 1 at −150.0, 1 at −1,200." in page.sentences
        assert "−675" not in "".join(page.text)
    else:
        # 1 − 1684/8832 = .809 and 1 − 9306/8832 = −.054.
        assert ours["FLOPs / step"] == "1 × 1,684\n1 × 9,306"
        assert ours["saved / step"] == "1 × 81 %\n1 × −5 %"
        assert "1 at 1.68k FLOPs (81 % less), 1 at 9.31k FLOPs (5 % more)" in page.sentences
        assert "38 %" not in "".join(page.text)
    assert "on the front" not in ours["row"]
    tips = [tip for tip in page.tips if tip.startswith("ours")]
    # Each seed once in the wide and once in the narrow chart; a mean would say "mean of 2 seeds".
    assert len(tips) == 4
    assert not any("mean of" in tip for tip in tips)


def test_a_reference_of_two_groups_is_said_by_its_groups(tmp_path: Path) -> None:
    # Its mean −670 is 530 above random actions; its seeds are 1,040 apart.
    large = seeds("large", 1000.0, [-150.0, -1190.0], baseline=True)
    page = page_of([*large, *seeds("ours", 500.0, [-200.0, -202.0])], tmp_path, random_return=-1200.0)
    earned = (
        "ours earns −201.0 with 50 % less compute than large, which has two groups of seeds: 1 at −150.0, 1 at −1,190"
    )
    assert page.findings[0].startswith(earned)
    assert "−670" not in "".join(page.text)


def test_a_row_that_has_not_learnt_is_marked_and_never_named_best(tmp_path: Path) -> None:
    # Random 20, the reference 222: a row has to earn 20 + 20.2 = 40.2.
    points = [*LARGE, *seeds("idle", 100.0, [40.0, 40.2]), *seeds("ours", 500.0, [40.4, 40.4])]
    page = page_of(points, tmp_path, random_return=20.0)
    assert "not learnt" in results(page, "idle")["row"]
    assert "not learnt" not in results(page, "ours")["row"]
    assert page.findings[0].startswith("ours earns 40.4 with 50 % less compute")
    assert "Not learnt (less than random actions and 10 % of the way to large): idle (40.1)." in page.sentences
    alone = page_of([*LARGE, *seeds("idle", 100.0, [30.0, 31.0])], tmp_path, random_return=20.0)
    assert alone.findings[0].startswith("No method that spends less than large has learnt.")


def test_where_random_actions_are_unknown_nothing_is_said_of_learning(tmp_path: Path) -> None:
    page = page_of([*LARGE, *seeds("idle", 100.0, [0.0, 0.1])], tmp_path)
    assert "learnt" not in "".join(page.text)


def test_a_control_that_beats_its_method_is_said(tmp_path: Path) -> None:
    points = [
        *LARGE,
        *seeds("ours", 300.0, [200.0, 202.0]),
        # 2 % more FLOPs than its method is as cheap, by the error of a coin's draw.
        *seeds("coin", 306.0, [210.0, 212.0], baseline=True, control="coin", of="ours"),
    ]
    page = page_of(points, tmp_path)
    assert results(page, "coin")["mean return"] == "211.0"
    assert results(page, "ours")["mean return"] == "201.0"
    assert "ours does not beat its control coin: 211.0 beside 201.0." in page.sentences


def test_a_control_that_overlaps_its_method_is_said_and_one_that_loses_is_not(tmp_path: Path) -> None:
    points = [
        *LARGE,
        *seeds("ours", 300.0, [200.0, 210.0]),
        *seeds("coin", 300.0, [190.0, 201.0], baseline=True, control="coin", of="ours"),
        *seeds("shuffled", 300.0, [100.0, 101.0], baseline=True, control="shuffled", of="ours"),
    ]
    page = page_of(points, tmp_path)
    assert "ours cannot be told apart from its control coin: 195.5 beside 205.0." in page.sentences
    assert "shuffled" not in page.sentences


def test_a_control_made_of_a_method_is_never_the_reference(tmp_path: Path) -> None:
    dearest = seeds("dearest", 1100.0, [222.0, 222.0], baseline=True, control="dearest", of="ours")
    page = page_of([*LARGE, *seeds("ours", 300.0, [200.0, 210.0]), *dearest], tmp_path)
    assert results(page, "large")["saved / step"] == "reference"
    assert results(page, "dearest")["saved / step"] == "−10.0 %"


def test_other_dominated_methods_are_listed(tmp_path: Path) -> None:
    points = [*LARGE, *seeds("small", 100.0, [210.0, 210.0], baseline=True), *seeds("ours", 90.0, [211.0, 211.0])]
    page = page_of([*points, *seeds("worse", 400.0, [200.0, 200.0])], tmp_path)
    assert page.findings[0].startswith("ours earns 211.0")
    assert "Dominated by a baseline: worse by small." in page.sentences


def test_controls_follow_their_method_s_new_label(tmp_path: Path) -> None:
    points = [*LARGE, *seeds("ours", 300.0, [200.0, 202.0])]
    points += seeds("coin", 300.0, [210.0, 212.0], baseline=True, control="coin", of="ours")
    Comparison("Car-v0", points).write(tmp_path)
    page = Page(write_report([tmp_path], labels=["mine"]).page.read_text(encoding="utf-8"))
    assert "dominated by its control mine: coin" in page.sentences


def test_curves_of_two_groups_are_a_line_for_each_seed(tmp_path: Path) -> None:
    def trained(label: str, flops: float, ends: list[float], **extras: object) -> list[TradeoffPoint]:
        curves = [[(0.0, -1200.0), (10.0, end)] for end in ends]
        return [
            replace(point, curve=curve)
            for point, curve in zip(seeds(label, flops, ends, **extras), curves, strict=True)
        ]

    points = [*trained("large", 1000.0, [-140.0, -142.0], baseline=True), *trained("ours", 500.0, [-150.0, -1190.0])]
    page = page_of(points, tmp_path, random_return=-1200.0)
    drawn = [value for name, value in page.attributes if name == "class" and value.startswith("curve")]
    # In each of two charts a mean of the one row, and two seeds of the other.
    assert sorted(drawn) == ["curve"] * 2 + ["curve single"] * 4 + ["curves narrow", "curves wide"]
    bands = [value for name, value in page.attributes if (name, value) == ("class", "band")]
    assert len(bands) == 2
