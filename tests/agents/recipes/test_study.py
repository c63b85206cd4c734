"""The arithmetic of the published study's harness."""

import pytest

from benchmarks.asymmetric.study import (
    PUBLISHED,
    PUBLISHED_STUDENTS,
    fit_width,
    markdown,
    summary_of,
)


def flops(observation: int, action: int, width: int) -> int:
    return 2 * (observation * width + width * width + 2 * width * action)


@pytest.mark.parametrize("width", [1, 8, 37, 256])
def test_fit_finds_the_width_that_costs_just_this(width: int) -> None:
    assert fit_width(24, 6, flops(24, 6, width)) == width


def test_fit_takes_the_nearest_width_and_never_less_than_one() -> None:
    assert fit_width(2, 1, 0.6 * flops(2, 1, 10) + 0.4 * flops(2, 1, 11)) == 10
    assert fit_width(2, 1, 0.4 * flops(2, 1, 10) + 0.6 * flops(2, 1, 11)) == 11
    assert fit_width(2, 1, 0.0) == 1


def run(method: str, seed: int, score: float, per_step: float, share: float | None = None) -> dict:
    final = {"raw_return": score, "flops_per_step": per_step, "share_large": share}
    return {"method": method, "seed": seed, "run": {"steps": 10}, "final": {"deterministic": final}}


def test_row_has_mean_best_and_what_is_saved_against_large_only() -> None:
    runs = [run("large-only", 0, 90.0, 1000.0), run("large-only", 1, 94.0, 1000.0)]
    runs += [run("asymmetric", 0, 80.0, 400.0, 0.3), run("asymmetric", 1, 95.0, 600.0, 0.5)]
    row = summary_of("mountain-car", "asymmetric", "deterministic", runs)
    assert (row["large-only"]["mean"], row["asymmetric"]["mean"]) == (92.0, 87.5)
    assert row["asymmetric"]["mean_saved"] == pytest.approx(0.5)
    assert row["best"] == {"score": 95.0, "share_large": 0.5, "saved": pytest.approx(0.4)}
    assert row["small-only"]["mean"] is None


def test_nothing_is_tabulated_without_large_only() -> None:
    assert summary_of("mountain-car", "asymmetric", "deterministic", [run("asymmetric", 0, 1.0, 1.0, 0.1)]) is None


def test_students_stand_beside_fit_where_there_are_any() -> None:
    runs = [run("large-only", 0, 90.0, 1000.0), run("asymmetric", 0, 80.0, 400.0, 0.3)]
    without = summary_of("mountain-car", "asymmetric", "deterministic", runs)
    assert (without["gail"]["mean"], without["bc"]["mean"]) == (None, None)
    runs += [run("gail", 0, -99.0, 400.0), run("bc", 0, 91.0, 390.0), run("bc", 1, 93.0, 390.0)]
    row = summary_of("mountain-car", "asymmetric", "deterministic", runs)
    # (91 + 93)/2 = 92, and the sample's standard deviation is √2.
    assert (row["gail"]["mean"], row["bc"]["mean"]) == (-99.0, 92.0)
    lines = [line.strip("| ").split(" | ") for line in markdown([without, row]).splitlines()[2:]]
    assert [line[5:8] for line in (lines[0], *lines[2:])] == [
        ["fit", "gail", "bc"],
        ["–", "–", "–"],
        ["–", "-99.0 (1)", "92.0 ± 1.4 (2)"],
        ["90.5", "-99.9", "93.3"],
    ]
    assert {len(line) for line in (lines[0], *lines[2:])} == {14}


def test_every_task_has_published_students() -> None:
    assert PUBLISHED_STUDENTS.keys() == PUBLISHED.keys()
