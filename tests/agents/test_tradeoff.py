import json
from pathlib import Path

import pytest

from agents.report.tradeoff import FILE_NAME, Comparison, TradeoffPoint, interval_note, summarise
from budget_wrappers.errors import CheckpointError, ConfigError, NonFiniteError


def episode(total: float, flops: float = 1000.0, length: float = 10.0) -> dict[str, float]:
    return {"return": total, "flops": flops, "length": length}


def point(label: str, value: float, flops: float, seed: int = 0, **extras: object) -> TradeoffPoint:
    return TradeoffPoint(label, label, seed, value, flops, extras=extras)


def test_point_of_episodes_weighs_flops_by_steps_and_returns_by_episodes() -> None:
    # Returns: (4 + 8)/2 = 6. FLOPs per step: (100 + 900)/(10 + 30) = 25, not the mean of 10 and 30.
    episodes = [episode(4.0, flops=100, length=10), episode(8.0, flops=900, length=30)]
    made = TradeoffPoint.from_episodes("m", "m", 0, episodes)
    assert (made.mean_return, made.flops_per_step) == (6.0, 25.0)


def test_comparison_survives_its_file(tmp_path: Path) -> None:
    one = TradeoffPoint("m", "m, λ = 0.1", 3, 1.5, 8.0, [episode(1.5)], [(0, 0.0), (10, 1.5)], {"weight": 0.1})
    comparison = Comparison("CartPole-v1", [one], "matmul", "budget tradeoff", {"torch": "2.13.0"}, {"steps": 10})
    comparison.write(tmp_path)
    assert Comparison.read(tmp_path) == comparison


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = Comparison("A", [point("m", 1.0, 2.0)]).write(tmp_path)
    before = path.read_text()
    with pytest.raises(TypeError, match="not JSON serializable"):
        Comparison("A", [point("m", 1.0, 2.0)], settings={"env": object()}).write(tmp_path)
    assert path.read_text() == before


def test_missing_file_names_the_folder_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tradeoff.json does not exist; .*budget tradeoff"):
        Comparison.read(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"format": 1, "env_id"', "[]", '{"format": 1, "points": []', '{"format": 1, "env_id": "A", "pts": []}']
)
def test_damaged_file_raises(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(CheckpointError, match="not a comparison that this version wrote"):
        Comparison.read(tmp_path)


def test_file_of_a_later_format_raises_with_both_numbers(tmp_path: Path) -> None:
    path = Comparison("A", [point("m", 1.0, 2.0)]).write(tmp_path)
    later = {**json.loads(path.read_text()), "format": 9}
    later.pop("crc32")
    path.write_text(json.dumps(later))
    with pytest.raises(CheckpointError, match="format 9; expected 1"):
        Comparison.read(tmp_path)


def test_diverged_return_raises() -> None:
    with pytest.raises(NonFiniteError, match=r"'m', seed 0: a return is NaN or infinite"):
        point("m", float("nan"), 1.0)


@pytest.mark.parametrize("flops", [0.0, -1.0, float("inf")])
def test_acting_that_costs_nothing_raises(flops: float) -> None:
    with pytest.raises(ConfigError, match="flops_per_step="):
        point("m", 1.0, flops)


def test_no_episodes_raise() -> None:
    with pytest.raises(ConfigError, match="0 episodes of 0 steps"):
        TradeoffPoint.from_episodes("m", "m", 0, [])


def test_savings_are_against_the_dearest_baseline_even_where_a_method_is_dearer() -> None:
    rows = summarise(
        [
            point("small", 1.0, 100.0, baseline=True),
            point("large", 5.0, 400.0, baseline=True),
            point("ours", 5.0, 300.0),
            point("giant", 6.0, 800.0),
        ]
    )
    # 1 − 100/400, 1 − 300/400, 0 by definition, 1 − 800/400.
    assert [(row.label, row.saved) for row in rows] == [
        ("small", 0.75),
        ("ours", 0.25),
        ("large", 0.0),
        ("giant", -1.0),
    ]
    assert [row.label for row in rows if row.reference] == ["large"]


def test_front_holds_exactly_what_nothing_beats() -> None:
    # "twin" equals "b" in both and so beats it in neither; "c" costs more than "b" and earns less.
    rows = summarise([point("a", 1.0, 10.0), point("b", 3.0, 20.0), point("twin", 3.0, 20.0), point("c", 2.0, 30.0)])
    assert {row.label for row in rows if row.efficient} == {"a", "b", "twin"}


def test_row_averages_its_seeds() -> None:
    points = [
        point("m", value, flops, seed, share_large=share)
        for seed, value, flops, share in [(1, 2.0, 10.0, 0.2), (0, 4.0, 30.0, 0.6)]
    ]
    (row,) = summarise(points)
    assert (row.mean_return, row.flops_per_step, row.interval_over) == (3.0, 20.0, "seeds")
    assert row.share_large == pytest.approx(0.4)
    assert [each.seed for each in row.points] == [0, 1]
    # Two seeds have a range and no interval.
    assert (row.low, row.high) == (2.0, 4.0)


def test_episodes_of_one_seed_are_no_interval_over_trainings() -> None:
    rows = summarise([TradeoffPoint.from_episodes("m", "m", 0, [episode(0.0), episode(10.0)])])
    assert (rows[0].low, rows[0].high, rows[0].interval_over) == (5.0, 5.0, "nothing")
    assert interval_note(rows) == "one seed: no interval over trainings can be given"


def test_one_seed_of_one_episode_claims_no_interval() -> None:
    rows = summarise([TradeoffPoint.from_episodes("m", "m", 0, [episode(5.0)])])
    assert (rows[0].low, rows[0].high, rows[0].interval_over) == (5.0, 5.0, "nothing")
    assert "no interval" in interval_note(rows)


def test_a_seed_twice_in_one_row_raises() -> None:
    with pytest.raises(ConfigError, match=r"'m' has seeds \[0, 0\]; expected each once"):
        summarise([point("m", 1.0, 1.0), point("m", 2.0, 1.0)])


def test_nothing_to_summarise_raises() -> None:
    with pytest.raises(ConfigError, match="points is empty"):
        summarise([])


def test_merging_joins_points_and_commands() -> None:
    one = Comparison("A", [point("m", 1.0, 2.0)], command="first", versions={"torch": "2.13.0"})
    two = Comparison("A", [point("n", 1.0, 2.0)], command="second", versions={"mujoco": "3.11.0"})
    merged = Comparison.merged([one, two])
    assert [each.label for each in merged.points] == ["m", "n"]
    assert merged.command == "first\nsecond"
    assert merged.versions == {"torch": "2.13.0", "mujoco": "3.11.0"}


def test_merging_keeps_what_random_actions_return() -> None:
    # Estimates of one number: (−10 − 14)/2; a run that recorded none leaves the others'.
    parts = [
        Comparison("A", [point(name, 1.0, 2.0)], settings=settings)
        for name, settings in (("m", {"random_return": -10.0}), ("n", {"random_return": -14.0}), ("o", {}))
    ]
    assert Comparison.merged(parts).settings == {"random_return": -12.0}
    assert Comparison.merged(parts[2:] * 2, ["a", "b"]).settings == {}


def test_environments_are_not_merged() -> None:
    with pytest.raises(ConfigError, match="cannot compare B"):
        Comparison.merged([Comparison("A", [point("m", 1.0, 2.0)]), Comparison("B", [point("m", 1.0, 2.0)])])
