"""What rows cost beyond a step of acting: numbers derived in sight."""

import math

import pytest

from agents.report import costs
from agents.report.tables import COST_HEADINGS, Cell, cost_line, result_headings, result_line, run_line
from agents.report.tradeoff import Row, TradeoffPoint, summarise


def point(label: str, flops: float, length: int = 10, seed: int = 0, **extras: object) -> TradeoffPoint:
    episodes = [{"return": 1.0, "flops": flops * length, "length": length}] * 2
    return TradeoffPoint.from_episodes(label, label, seed, episodes, extras=extras)


LARGE = point("large", 100.0, baseline=True, train_act_flops=200.0, train_learn_flops=1000.0, us_per_action=50.0)


def rows(*points: TradeoffPoint) -> dict[str, Row]:
    return {row.label: row for row in summarise([LARGE, *points])}


def test_an_agent_that_is_cheaper_per_step_may_cost_more_per_episode() -> None:
    found = rows(point("slow", 60.0, length=20))
    slow, large = found["slow"], found["large"]
    # 60 · 20 = 1,200 beside 100 · 10 = 1,000.
    assert costs.flops_per_episode(slow.points) == 1200.0
    assert costs.saved_per_episode(slow.points, large) == pytest.approx(-0.2)
    assert slow.saved == pytest.approx(0.4)
    cells = dict(zip(result_headings(list(found.values())), result_line(slow, large), strict=True))
    assert (cells["FLOPs / episode"].text, cells["saved / episode"].text) == ("1.2k", "−20.0 %")


def test_break_even_is_what_training_took_more_over_what_a_step_saves() -> None:
    dearer = point("dearer", 60.0, train_act_flops=300.0, train_learn_flops=2100.0)
    found = rows(dearer)
    # (300 + 2,100 − 1,200) / (100 − 60) = 30 deployed steps.
    assert costs.break_even(found["dearer"].points, found["large"]) == 30.0
    assert costs.learning_times(found["dearer"].points, found["large"]) == 2.1
    cells = dict(zip(COST_HEADINGS, cost_line(found["dearer"], found["large"]), strict=True))
    assert cells["break-even, deployed steps"] == Cell("30", 30.0)
    assert cells["learning FLOPs ×"].text == "2.10 ×"
    assert cells["training FLOPs"].text == "2.4k"


@pytest.mark.parametrize(
    ("flops", "learning", "text", "steps"),
    [
        (60.0, 900.0, "at once", 0.0),
        (60.0, 1000.0, "at once", 0.0),
        (100.0, 2000.0, "never", math.inf),
        (140.0, 10.0, "never", math.inf),
        (140.0, None, "never", math.inf),
        (60.0, None, "–", None),
    ],
)
def test_break_even_in_words(flops: float, learning: float | None, text: str, steps: float | None) -> None:
    found = rows(point("m", flops, train_act_flops=200.0, train_learn_flops=learning))
    assert costs.break_even(found["m"].points, found["large"]) == steps
    cells = dict(zip(COST_HEADINGS, cost_line(found["m"], found["large"]), strict=True))
    assert cells["break-even, deployed steps"].text == text


def test_a_row_of_two_groups_breaks_even_by_group() -> None:
    trained = {"train_act_flops": 200.0, "train_learn_flops": 1810.0}
    found = rows(point("m", 19.0, seed=0, **trained), point("m", 105.0, seed=1, **trained))
    cells = dict(zip(COST_HEADINGS, cost_line(found["m"], found["large"]), strict=True))
    # (2,010 − 1,200) / (100 − 19) = 10.
    assert cells["break-even, deployed steps"].text == "1 × 10\n1 × never"


def test_older_files_have_dashes() -> None:
    bare = TradeoffPoint("m", "m", 0, 1.0, 60.0)
    found = rows(bare)
    assert {cell.text for cell in cost_line(found["m"], found["large"])} == {"–"}
    assert {cell.text for cell in result_line(found["m"], found["large"])[-2:]} == {"–"}
    assert [cell.text for cell in run_line(bare)] == ["0", "1.000", "60.0", *["–"] * 8]


def test_time_is_the_median_over_seeds_and_missing_where_one_seed_has_none() -> None:
    timed = [point("m", 60.0, seed=seed, us_per_action=time) for seed, time in enumerate((10.0, 30.0, 11.0))]
    assert costs.us_per_action(timed) == 11.0
    assert costs.us_per_action([*timed, point("m", 60.0, seed=3)]) is None


def test_choices_are_named_with_their_shares() -> None:
    shares = [{"exit 1": 0.9, "exit 2": 0.1}, {"exit 1": 0.7, "exit 2": 0.3}]
    found = rows(*(point("m", 60.0, seed=seed, shares=own, gate_information=0.25) for seed, own in enumerate(shares)))
    cells = dict(zip(COST_HEADINGS, cost_line(found["m"], found["large"]), strict=True))
    assert cells["choices"].text == "exit 1 80 %, exit 2 20 %"
    assert cells["gate, nats"] == Cell("0.250", 0.25)


def test_a_run_names_its_folder_date_machine_and_duration() -> None:
    run = point("m", 60.0, run="runs/m-0", date="2026-11-30T12:00", machine="a computer", duration_s=330.0)
    assert [cell.text for cell in run_line(run)][-4:] == ["5.5 min", "2026-11-30T12:00", "a computer", "runs/m-0"]
