"""The arithmetic of BEXA's harness, and one small study from the first command to the table."""

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bexa import comparisons, study, tables
from benchmarks.bexa.comparisons import ablation, area_under_front, fronts, programs
from benchmarks.bexa.study import METHODS, VARIANTS, name_of, settings_of
from benchmarks.bexa.tables import lines_of, markdown, table_rows


def run(method: str, budget: float | None, seed: int, score: float, flops: float, cost: float | None = None) -> dict:
    final = {"raw_return": score, "flops_per_step": flops} | ({} if cost is None else {"cost": cost})
    return {
        "method": method,
        "budget": budget,
        "units": None,
        "seed": seed,
        "run": {"steps": 10},
        "curve": [{"return": score - 10}, {"return": score}],
        "acting_flops_a_step": flops,
        "final": final,
    }


def test_speed_up_is_the_plain_agent_s_flops_over_the_budgeted_one_s_on_common_seeds() -> None:
    runs = [
        run("sac", None, 0, 100, 1000),
        run("bexa-sac", 0.2, 0, 90, 250, 0.2),
        run("bexa-sac", 0.2, 1, 80, 100, 0.1),
    ]
    plain, bexa = sorted(table_rows(runs), key=lambda row: row["method"] != "sac")
    assert plain["speed_up"] is None
    assert bexa["speed_up"]["each"] == [4.0]
    # the means of both curves, (80 + 90)/2 and (70 + 80)/2
    assert bexa["over_training"]["each"] == [85.0, 75.0]
    assert bexa["cost"]["mean"] == pytest.approx(0.15)


def test_a_line_through_three_budgets_and_the_largest_overdraft() -> None:
    runs = [run("bexa-sac", b, 0, 1, 100 + 200 * b, b - 0.1) for b in (0.0, 0.5)]
    assert lines_of(table_rows(runs)) == []
    runs.append(run("bexa-sac", 1.0, 0, 1, 300, 1.05))
    (line,) = lines_of(table_rows(runs))
    assert (line["slope"], line["intercept"]) == (pytest.approx(200), pytest.approx(100))
    assert (line["r_squared"], line["overdraft"]) == (pytest.approx(1), pytest.approx(0.05))


def test_a_conditioned_agent_has_a_row_for_each_budget() -> None:
    one = run("bexa-sac-conditioned", None, 0, 1, 1)
    one["final"] = {"0": {"raw_return": 1, "flops_per_step": 10, "cost": 0.0}, "0.4": {**one["final"], "cost": 0.4}}
    assert [row["budget"] for row in table_rows([one])] == [0.0, 0.4]


def test_programs_are_compared_seed_by_seed() -> None:
    cells = {"bexa-td3": (10, 20), "bexa-td3-batch": (13, 27), "bexa-td3-mixture": (11,)}
    runs = [
        run(method, 0.4, seed, score, 1, 0.5) for method, scores in cells.items() for seed, score in enumerate(scores)
    ]
    (row,) = programs(runs)
    changes = {(change["without"], change["with"]): change for change in row["changes"]}
    assert changes["", "batch"]["final"]["each"] == [3.0, 7.0]
    assert changes["", "mixture"]["final"]["each"] == [1.0]  # of the one seed that both have
    assert ("mixture", "batch-mixture") not in changes
    assert row["cells"][""]["beyond_budget"]["mean"] == pytest.approx(0.1)


def test_an_ablation_has_a_row_for_each_switch_beside_the_plain_agent() -> None:
    runs = [run(f"bexa-td3{v}", 0.4, 0, 5, 50, 0.4) for v in ("", "-greedy", "-softmax")] + [run("td3", None, 0, 9, 80)]
    (table,) = ablation(runs)
    assert [row["variant"] for row in table["rows"]] == ["softmax", "greedy", "BEXA", "plain td3"]
    assert table["rows"][0]["speed_up"]["each"] == [80 / 50]
    assert table["rows"][3]["cost"] is None


def test_the_area_under_a_front_is_a_staircase_s() -> None:
    # 0 up to cost .2, then 5 up to .6, then 7: a point that is worth less than a cheaper one adds nothing
    points = [(0.6, 7.0), (0.2, 5.0), (0.8, 6.0)]
    assert area_under_front(points, 0.0) == pytest.approx(0.4 * 5 + 0.4 * 7)
    assert area_under_front(points, 5.0) == pytest.approx(0.4 * 2)
    assert area_under_front([(1.0, 3.0)], 0.0) == 0.0


def test_one_agent_for_all_budgets_is_beside_as_many_as_there_are_budgets() -> None:
    apart = [run("bexa-td3-mixture", b, 0, 10 * b, 1, b) for b in (0.0, 0.2, 0.4, 0.6, 1.0)]
    one = run("bexa-td3-conditioned", None, 0, 1, 1)
    one["final"] = {other["budget"]: other["final"] for other in apart}
    for each in (*apart, one):
        each["learning_flops"] = 7
    assert fronts([*apart[1:], one]) == []
    (row,) = fronts([*apart, one])
    assert row["one"]["area"] == row["many"]["area"] == pytest.approx(0.2 * 2 + 0.2 * 4 + 0.4 * 6)
    assert (row["one"]["learning_flops"], row["many"]["learning_flops"]) == (7, 35)
    assert (row["one"]["environment_steps"], row["many"]["environment_steps"]) == (10, 50)


def test_every_method_is_settings_of_an_agent() -> None:
    for method in METHODS:
        name, settings = settings_of(method, 0.4, 16)
        assert name in ("sac", "td3", "bexa-sac", "bexa-td3")
        assert settings["net_arch"] == (16, 16)
        conditioned = method.endswith("conditioned")
        assert ("budget" in settings) == (method.startswith("bexa") and not conditioned)
    assert set(METHODS) == {"sac", "td3"} | {f"bexa-{a}{'-' * bool(v)}{v}" for a in ("sac", "td3") for v in VARIANTS}
    assert settings_of("td3", 0.4, None)[1] == {"learning_starts": 25_000, "learning_rate": 3e-4}
    assert name_of("bexa-sac-batch", 0.4, 16, 100, 2) == "bexa-sac-batch-b0.4-units16-100-seed2"
    assert name_of("sac", 0.4, None, 100, 2) == "sac-100-seed2"


def test_a_small_study_from_the_command_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (study, tables, comparisons):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(study, "RUNS", tmp_path / "runs")
    for name in ("EPISODES", "FINAL_EPISODES"):
        monkeypatch.setattr(study, name, 1)
    wait = {"learning_starts": 100}
    original: Any = settings_of
    monkeypatch.setattr(study, "settings_of", lambda *given: (original(*given)[0], {**original(*given)[1], **wait}))
    for words in (["sac"], *(["bexa-sac", "--budget", b] for b in ("0", "0.5", "1")), ["bexa-sac-conditioned"]):
        command = ["study", "run", "pendulum", *words, "--seed", "0", "--steps", "200", "--units", "4"]
        monkeypatch.setattr(sys, "argv", command)
        study.main()
    tables.main()
    comparisons.main()
    text = (tmp_path / "results" / "pendulum.md").read_text()
    # the header and rows of five runs, one of which has six budgets
    assert text.count("| 4 | 200 |") == 4 + 6 + 2
    assert (tmp_path / "results" / "pendulum-budget.png").stat().st_size > 10_000
    for picture in ("curves", "front"):
        assert (tmp_path / "results" / f"pendulum-sac-units4-200-{picture}.png").stat().st_size > 10_000
    assert (tmp_path / "results" / "comparisons.md").exists()
    rows = table_rows(study.stored("pendulum"))
    assert markdown("pendulum", rows, lines_of(rows)) == text
