"""docs/compaction.md says what ``benchmarks.sparse_latency`` stored: its table, and the two sentences about it."""

import statistics

import pytest

from benchmarks.sparse_latency import CONTENDERS, SPARSITIES, WIDTHS, markdown, ratio_of
from tests.stored import ROOT, prose, stored

PAGE = "docs/compaction.md"


def rows() -> list[dict]:
    return stored("sparse_latency/latency.json")["rows"]


def test_every_width_and_sparsity_was_measured() -> None:
    assert [(row["width"], row["sparsity"]) for row in rows()] == [(w, s) for w in WIDTHS for s in SPARSITIES]


def test_medians_and_ratios_are_those_of_the_stored_turns() -> None:
    for row in rows():
        for name in CONTENDERS:
            turns = row["turns_us"]
            assert row["p50_us"][name] == pytest.approx(statistics.median(turns[name]))
            assert row["ratio"][name] == pytest.approx(ratio_of(turns["dense"], turns[name]))


def test_the_table_is_what_the_script_makes_of_the_stored_turns() -> None:
    assert markdown(stored("sparse_latency/latency.json")) in (ROOT / PAGE).read_text()


def test_256_units_gain_nothing_from_sparse_products() -> None:
    assert "A policy of 2×256 units gains nothing from products that skip zeros" in prose(PAGE)
    assert "so a tenth more or less means nothing" in prose(PAGE)
    assert all(row["ratio"]["sparse"] < 1.1 for row in rows() if row["width"] == 256)


def test_random_weights_lose_few_units_below_99_percent() -> None:
    assert "Random weights lose few units below 0.99" in prose(PAGE)
    for row in rows():
        if row["sparsity"] < 0.99:
            assert sum(row["widths"]["compacted"]) > 0.97 * sum(row["widths"]["dense"])
