"""The arithmetic of BEXA's harness, and one small study from the first command to the table."""

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bexa import study, tables
from benchmarks.bexa.study import METHODS, VARIANTS, name_of, settings_of
from benchmarks.bexa.tables import lines_of, markdown, rows_of


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
    plain, bexa = sorted(rows_of(runs), key=lambda row: row["method"] != "sac")
    assert plain["speed_up"] is None
    assert bexa["speed_up"]["each"] == [4.0]
    # the means of both curves, (80 + 90)/2 and (70 + 80)/2
    assert bexa["over_training"]["each"] == [85.0, 75.0]
    assert bexa["cost"]["mean"] == pytest.approx(0.15)


def test_a_line_through_three_budgets_and_the_largest_overdraft() -> None:
    runs = [run("bexa-sac", b, 0, 1, 100 + 200 * b, b - 0.1) for b in (0.0, 0.5)]
    assert lines_of(rows_of(runs)) == []
    runs.append(run("bexa-sac", 1.0, 0, 1, 300, 1.05))
    (line,) = lines_of(rows_of(runs))
    assert (line["slope"], line["intercept"]) == (pytest.approx(200), pytest.approx(100))
    assert (line["r_squared"], line["overdraft"]) == (pytest.approx(1), pytest.approx(0.05))


def test_a_conditioned_agent_has_a_row_for_each_budget() -> None:
    one = run("bexa-sac-conditioned", None, 0, 1, 1)
    one["final"] = {"0": {"raw_return": 1, "flops_per_step": 10, "cost": 0.0}, "0.4": {**one["final"], "cost": 0.4}}
    assert [row["budget"] for row in rows_of([one])] == [0.0, 0.4]


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
    for module in (study, tables):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(study, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(study, "FINAL_EPISODES", 1)
    wait = {"learning_starts": 100}
    original: Any = settings_of
    monkeypatch.setattr(study, "settings_of", lambda *given: (original(*given)[0], {**original(*given)[1], **wait}))
    for words in (["sac"], *(["bexa-sac", "--budget", b] for b in ("0", "0.5", "1")), ["bexa-sac-conditioned"]):
        command = ["study", "run", "pendulum", *words, "--seed", "0", "--steps", "200", "--units", "4"]
        monkeypatch.setattr(sys, "argv", command)
        study.main()
    tables.main()
    text = (tmp_path / "results" / "pendulum.md").read_text()
    # the header and rows of five runs, one of which has six budgets
    assert text.count("| 4 | 200 |") == 4 + 6 + 2
    assert (tmp_path / "results" / "pendulum-budget.png").stat().st_size > 10_000
    rows = rows_of(study.stored("pendulum"))
    assert markdown("pendulum", rows, lines_of(rows)) == text
