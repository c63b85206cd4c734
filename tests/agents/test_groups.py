"""Seeds that fall into two groups: the rule, and how often normal seeds are called so by mistake."""

from pathlib import Path

import numpy as np
import pytest

from agents.report.groups import two_groups
from agents.report.tradeoff import TradeoffPoint, summarise

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def groups(values: list[float], scale: float = 1.0) -> tuple[tuple[float, ...], ...] | None:
    return two_groups(values, float, scale)


def test_the_widest_gap_parts_the_groups() -> None:
    # Gaps .1 and .7: .7 is at least half of the scale, and of the range .8.
    assert groups([0.9, 0.1, 0.2]) == ((0.1, 0.2), (0.9,))


def test_two_seeds_are_two_groups_from_half_of_the_scale_on() -> None:
    assert groups([0.0, 0.5]) == ((0.0,), (0.5,))
    assert groups([0.0, 0.49]) is None


def test_seeds_scattered_over_everything_are_not_two_groups() -> None:
    # The widest gap .5 is half of the scale and not of the range 1.2.
    assert groups([0.0, 0.35, 0.7, 1.2]) is None
    assert groups([0.0, 0.1, 0.7, 1.2], scale=1.2) == ((0.0, 0.1), (0.7, 1.2))


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_nothing_is_known_without_a_scale(scale: float) -> None:
    assert groups([0.0, 1000.0], scale) is None


def test_one_seed_is_one_group() -> None:
    assert groups([3.0]) is None


@pytest.mark.parametrize(
    ("deviation", "rates"), [(0.10, (0.0, 0.0, 0.0, 0.0)), (0.15, (1.8, 0.7, 0.2, 0.0)), (0.20, (7.7, 5.2, 1.8, 0.4))]
)
def test_false_alarms_on_normal_seeds_are_as_documented(deviation: float, rates: tuple[float, ...]) -> None:
    # Of 2, 3, 5 and 10 seeds, in per cent. The difference of two seeds has √2 of their deviation, so of two it is
    # P(|z| > .5/.1414) = .04 %, P(|z| > .5/.2121) = 1.8 %, P(|z| > .5/.2828) = 7.7 %.
    for count, rate in zip((2, 3, 5, 10), rates, strict=True):
        samples = deviation * np.random.default_rng(0).normal(size=(20_000, count))
        alarms = sum(two_groups(list(sample), float, 1.0) is not None for sample in samples)
        # The standard error of 7.7 % of 20,000 samples is .2 %.
        assert 100 * alarms / len(samples) == pytest.approx(rate, abs=0.6)


def point(seed: int, value: float, label: str = "m", flops: float = 1.0, **extras: object) -> TradeoffPoint:
    return TradeoffPoint(label, label, seed, value, flops, extras=extras)


def test_a_row_of_opposite_seeds_has_two_groups() -> None:
    # An earlier demonstration: of two seeds one saved 81 % of 8,832 FLOPs, and one spent 5 % more.
    rows = [("large", -143.1, 8_832), ("large", -142.0, 8_832), ("λ", -142.3, 1_681), ("λ", -143.1, 9_310)]
    seeds = [point(number % 2, value, label, flops) for number, (label, value, flops) in enumerate(rows)]
    assert {row.label for row in summarise(seeds) if row.flops_groups} == {"λ"}


LARGE = [point(seed, value, "large", 10.0, baseline=True) for seed, value in enumerate((-143.0, -141.0))]


def split(points: list[TradeoffPoint], random: float | None) -> bool:
    (row,) = [row for row in summarise([*LARGE, *points], random) if row.label == "m"]
    return row.split


def test_returns_are_judged_by_what_the_reference_earns_above_random_actions() -> None:
    # Half of −142 − (−1200) = 1,058 is 529.
    assert split([point(0, -150.0), point(1, -680.0)], -1200.0)
    assert not split([point(0, -150.0), point(1, -670.0)], -1200.0)


def test_without_random_actions_a_gap_as_large_as_the_reference_s_return_is_gross() -> None:
    assert split([point(0, -150.0), point(1, -293.0)], None)
    assert not split([point(0, -150.0), point(1, -290.0)], None)


def test_the_reference_is_not_judged_by_its_own_return() -> None:
    (row,) = summarise([point(0, 0.0), point(1, 100.0)])
    assert not row.split


def test_a_split_row_gives_lowest_and_highest_and_is_on_no_front() -> None:
    rows = summarise([*LARGE, *(point(seed, value) for seed, value in enumerate((-140.0, -1.0e3) * 3))], -1200.0)
    (row,) = [row for row in rows if row.label == "m"]
    assert (row.low, row.high, row.efficient) == (-1000.0, -140.0, False)
    assert [len(group) for group in row.return_groups] == [3, 3]
    # The higher returns first.
    assert row.return_groups[0][0].mean_return == -140.0


def test_a_row_that_learnt_nothing_is_on_no_front() -> None:
    # −1200 + .1 · 1,058 = −1094.2.
    rows = {row.label: row for row in summarise([*LARGE, point(0, -1095.0)], -1200.0)}
    assert (rows["m"].learnt, rows["m"].efficient) == (False, False)
    assert (rows["large"].learnt, rows["large"].efficient) == (True, True)
    assert {row.learnt for row in summarise([*LARGE, point(0, -1095.0)])} == {None}


def test_where_the_reference_earns_no_more_than_random_actions_it_has_not_learnt() -> None:
    rows = {row.label: row for row in summarise([*LARGE, point(0, -100.0)], -120.0)}
    assert (rows["large"].learnt, rows["m"].learnt) == (False, True)
