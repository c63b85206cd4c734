"""The arithmetic of the published study's harness."""

from pathlib import Path

import pytest

from benchmarks.asymmetric import study, tables
from benchmarks.asymmetric.study import PRICES, VARIANTS, fit_width, settings_of
from benchmarks.asymmetric.tables import PUBLISHED, PUBLISHED_STUDENTS, markdown, summary_of
from benchmarks.card import store


def flops(observation: int, action: int, width: int) -> int:
    return 2 * (observation * width + width * width + 2 * width * action)


@pytest.mark.parametrize("width", [1, 8, 37, 256])
def test_fit_finds_the_width_that_costs_just_this(width: int) -> None:
    assert fit_width(24, 6, flops(24, 6, width)) == width


def test_fit_takes_the_nearest_width_and_never_less_than_one() -> None:
    assert fit_width(2, 1, 0.6 * flops(2, 1, 10) + 0.4 * flops(2, 1, 11)) == 10
    assert fit_width(2, 1, 0.4 * flops(2, 1, 10) + 0.6 * flops(2, 1, 11)) == 11
    assert fit_width(2, 1, 0.0) == 1


def run(method: str, seed: int, score: float, per_step: float, share: float | None = None, length: int = 10) -> dict:
    episodes = [{"return": score, "flops": per_step * length, "length": length}]
    final = {"raw_return": score, "flops_per_step": per_step, "share_large": share, "by_episode": episodes}
    return {"method": method, "seed": seed, "run": {"steps": 10}, "final": {"deterministic": final}}


def test_row_has_mean_best_and_what_is_saved_against_large_only() -> None:
    runs = [run("large-only", 0, 90.0, 1000.0), run("large-only", 1, 94.0, 1000.0)]
    runs += [run("asymmetric", 0, 80.0, 400.0, 0.3), run("asymmetric", 1, 95.0, 600.0, 0.5, length=15)]
    row = summary_of("mountain-car", "asymmetric", "deterministic", runs)
    assert (row["large-only"]["mean"], row["asymmetric"]["mean"]) == (92.0, 87.5)
    assert row["asymmetric"]["mean_saved"] == pytest.approx(0.5)
    # An episode of large-only is 10,000 FLOPs; these are 4,000 and 15 · 600 = 9,000.
    assert row["asymmetric"]["saved_an_episode"] == pytest.approx([0.6, 0.1])
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
    assert {len(line) for line in (lines[0], *lines[2:])} == {15}


def test_every_task_has_published_students() -> None:
    assert PUBLISHED_STUDENTS.keys() == PUBLISHED.keys()


def test_a_variant_changes_what_its_name_says_and_nothing_else() -> None:
    _, plain = settings_of("walker-stand", {})
    changed = {name: settings_of("walker-stand", changes)[1] for name, changes in VARIANTS.items()}
    assert changed.pop("asymmetric") == plain
    # the preset's λ is 1e-2
    assert {name: changed[name]["weight"] for name in PRICES if name in changed} == {
        "no-cost": 0.0,
        "price-x10": pytest.approx(0.1),
        "price-x100": pytest.approx(1.0),
    }
    for name, table in changed.items():
        assert len([key for key in table if table[key] != plain.get(key)]) == 1, name
    assert changed["adaptive-hold"]["hold"] == (1, 5, 20)


def test_table_and_pictures_are_made_from_the_stored_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    scores = {"random": (-10.0, 0.0), "large-only": (90.0, 1000.0), "asymmetric": (88.0, 500.0)}
    for method, (score, flops) in {**scores, "price-x10": (80.0, 300.0)}.items():
        final = {"raw_return": score, "flops_per_step": flops, "share_large": 0.5}
        final["by_episode"] = [{"return": score + i, "flops": 20 * (flops + i), "length": 20} for i in range(3)]
        record = {"method": method, "seed": 0, "run": {"steps": 10}, "settings": {"weight": flops}, "curve": []}
        record["final"] = {"deterministic": final, "stochastic": final}
        store(tmp_path / "mountain-car" / f"{method}.json", record)
    text = tables.tabulate()
    assert "| asymmetric | 10 | deterministic | – | 90.0 (1) | – | – | – | 88.0 (1) | 50.0% | 50.0% | 50.0% |" in text
    assert (tmp_path / "mountain-car.md").read_text() == text
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["mountain-car-cloud.png", "mountain-car-front.png"]


def test_fit_goes_on_with_the_width_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "average_flops", lambda task, steps: float(flops(2, 1, 20)))
    assert study.width_of_fit("mountain-car", 10, tmp_path) == 20
    (tmp_path / "config.json").write_text('{"settings": {"net_arch": [17, 17]}}')
    assert study.width_of_fit("mountain-car", 10, tmp_path) == 17
