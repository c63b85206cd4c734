"""The sentence above a report names the row that deserves it, beside what beats it, and says where nothing is known."""

from typing import Any

import pytest

from agents.report.report import cells, finding
from agents.report.tradeoff import TradeoffPoint, summarise


def seeds(label: str, flops: float, returns: list[float], baseline: bool = False, **extras: Any) -> list[TradeoffPoint]:
    """Return a point a seed; each has one episode, so that nothing but seeds tells rows apart."""
    return [
        TradeoffPoint(label, label, seed, value, flops, extras={"baseline": baseline, **extras})
        for seed, value in enumerate(returns)
    ]


def episodes(label: str, flops: float, returns: list[float], baseline: bool = False) -> list[TradeoffPoint]:
    """Return the point of one training, evaluated over ``returns``."""
    made = [{"return": value, "flops": flops, "length": 1} for value in returns]
    return [TradeoffPoint.from_episodes(label, label, 0, made, extras={"baseline": baseline})]


LARGE = seeds("large", 100.0, [220.0, 222.0], baseline=True)


def test_a_baseline_that_returns_more_at_fewer_flops_is_named_first() -> None:
    # The new user's case: 208.9 at 12 FLOPs of 100 is dominated by 283.5 at 4.
    points = [
        *LARGE,
        *seeds("small", 4.0, [283.0, 284.0], baseline=True),
        *seeds("ours", 12.0, [208.0, 209.8]),
    ]
    text = finding(summarise(points))
    assert text.startswith("The baseline small earns 283.5 with 96 % less compute than large, which earns 221.0.")
    assert "ours, the best method under comparison, earns 208.9 with 88 % less compute" in text


def test_a_baseline_of_equal_return_and_fewer_flops_is_named_too() -> None:
    points = [*LARGE, *seeds("small", 4.0, [221.0, 221.0], baseline=True), *seeds("ours", 12.0, [221.0, 221.0])]
    assert finding(summarise(points)).startswith("The baseline small earns")


def test_overlapping_ranges_are_not_told_apart() -> None:
    # 130 … 311 holds all of 151 … 291.
    points = [*seeds("large", 100.0, [151.0, 291.0], baseline=True), *seeds("ours", 12.0, [130.0, 311.0])]
    assert "cannot be told apart from that of large" in finding(summarise(points))


def test_ranges_apart_are_told_apart() -> None:
    points = [*LARGE, *seeds("ours", 12.0, [200.0, 210.0])]
    assert "cannot be told apart" not in finding(summarise(points))


def test_a_cheaper_baseline_that_cannot_be_told_apart_is_named_though_it_dominates_nothing() -> None:
    points = [
        *LARGE,
        *seeds("small", 4.0, [150.0, 240.0], baseline=True),
        *seeds("ours", 12.0, [205.0, 215.0]),
    ]
    text = finding(summarise(points))
    assert text.startswith("ours earns")
    assert "cannot be told apart" in text
    assert "small (96 % less compute)" in text


def test_the_row_named_is_on_the_front() -> None:
    # "wide" has the highest return of what is cheaper than large and no baseline, and "ours" equals it for less.
    points = [*LARGE, *seeds("wide", 90.0, [210.0, 210.0]), *seeds("ours", 12.0, [210.0, 210.0])]
    assert finding(summarise(points)).startswith("ours earns 210.0 with 88 % less")


def test_of_one_training_s_budgets_the_cheapest_within_the_noise_of_its_episodes_is_named() -> None:
    # As retrofit makes them: −428.1 at 31 % of the FLOPs, −428.2 at 13 %, beside −427 as trained, all ± 100.
    noise = [-100.0, 100.0] * 10
    points = [
        *episodes("as trained", 100.0, [-427.0 + one for one in noise], baseline=True),
        *episodes("b = 0", 5.0, [-900.0 + one for one in noise]),
        *episodes("b = 0.1", 13.0, [-428.2 + one for one in noise]),
        *episodes("b = 0.3", 31.0, [-428.1 + one for one in noise]),
    ]
    text = finding(summarise(points))
    assert text.startswith("b = 0.1 earns −428.2 with 87 % less compute than as trained")
    assert "cannot be told apart from that of as trained" in text


def test_of_one_training_s_budgets_without_noise_the_best_is_named() -> None:
    points = [
        *episodes("as trained", 100.0, [90.0, 90.0], baseline=True),
        *episodes("b = 0.1", 13.0, [50.0, 50.0]),
        *episodes("b = 0.3", 31.0, [80.0, 80.0]),
    ]
    assert finding(summarise(points)).startswith("b = 0.3 earns 80.0")


@pytest.mark.parametrize("several", [True, False])
def test_where_no_method_is_cheaper_a_better_baseline_is_still_named(several: bool) -> None:
    points = [*LARGE, *seeds("ours", 120.0, [230.0, 230.0])]
    points += seeds("small", 4.0, [283.0, 284.0], baseline=True) if several else []
    text = finding(summarise(points))
    assert text.startswith("No method under comparison spends less than large.")
    assert ("small earns 283.5 with 96 % less" in text) is several


def test_seeds_that_save_much_and_nothing_are_not_said_by_their_mean() -> None:
    # 19 and 105 FLOPs of 100: no policy saves the 38 % of their mean.
    points = [
        *LARGE,
        *(TradeoffPoint("ours", "ours", seed, 221.0 - seed, flops) for seed, flops in enumerate((19.0, 105.0))),
    ]
    rows = summarise(points)
    text = finding(rows)
    assert "38 %" not in text
    assert "two groups of seeds: 1 at 19 FLOPs (81 % less), 1 at 105 FLOPs (5 % more)" in text
    (cell,) = (one for row in rows if row.label == "ours" for one in cells(row) if "%" in one)
    assert cell == "1 × 81 %\n1 × −5 %"


def test_seeds_that_save_rather_different_shares_are_said_by_their_range() -> None:
    # 20 and 50 of 100 FLOPs: further apart than 10 % of the reference's, not half of them.
    points = [
        *LARGE,
        *(TradeoffPoint("ours", "ours", seed, 221.0 - seed, flops) for seed, flops in enumerate((20.0, 50.0))),
    ]
    rows = summarise(points)
    assert "50 % less to 80 % less compute (by seed) than large" in finding(rows)
    (cell,) = (one for row in rows if row.label == "ours" for one in cells(row) if "%" in one)
    assert cell == "65.0 % (50 … 80 %)"
