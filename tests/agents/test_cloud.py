"""The cloud of (cost, score) per episode."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from agents.report.cloud import plot_cloud, random_return, scaled_episodes
from agents.report.tradeoff import Row, TradeoffPoint, summarise
from budget_wrappers.errors import ConfigError


def rows(large: float = 90.0) -> list[Row]:
    """Return a large policy of 1000 FLOPs a step and asymmetric sub-policies that spend less."""
    points = []
    for seed in (0, 1):
        own = [{"return": large + seed, "flops": 50_000, "length": 50}] * 3
        points.append(TradeoffPoint.from_episodes("large-only", "large-only", seed, own, extras={"baseline": True}))
        mixed = [{"return": 40.0, "flops": 20_000, "length": 40}, {"return": -20.0, "flops": 7_500, "length": 10}]
        points.append(TradeoffPoint.from_episodes("asymmetric", "asymmetric", seed, mixed, extras={"weight": 0.1}))
    return summarise(points)


def test_the_large_policy_has_cost_one_and_score_one_and_a_random_one_score_zero() -> None:
    asymmetric, large = rows()
    cloud = scaled_episodes(large, large, -9.5)
    # mean of 90 and 91 is 90.5: 100 above random
    np.testing.assert_allclose(cloud, [[1.0, 0.995]] * 3 + [[1.0, 1.005]] * 3)
    # 20,000/40 = 500 and 7,500/10 = 750 FLOPs a step of 1000
    expected = [[0.5, 0.495], [0.75, -0.105]]
    np.testing.assert_allclose(scaled_episodes(asymmetric, large, -9.5), expected * 2)


def test_a_reference_as_bad_as_random_has_no_scale(tmp_path: Path) -> None:
    asymmetric, large = rows(large=1.0)
    with pytest.raises(ConfigError, match=r"returns 1\.5 and random actions 2: expected more"):
        scaled_episodes(asymmetric, large, 2.0)
    assert plot_cloud([asymmetric, large], 2.0, tmp_path / "cloud.png", "Car") is None
    assert not (tmp_path / "cloud.png").exists()


def test_the_same_episodes_give_the_same_picture(tmp_path: Path) -> None:
    first, second = (plot_cloud(rows(), -9.5, tmp_path / name, "Car") for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")


def test_points_without_episodes_are_left_out(tmp_path: Path) -> None:
    bare = summarise([*(point for row in rows() for point in row.points), TradeoffPoint("other", "other", 0, 50.0, 10)])
    assert plot_cloud(bare, -9.5, tmp_path / "cloud.png", "Car").is_file()


def test_random_actions_are_seeded() -> None:
    # rewards of 1 a step: the return is the length, which the actions decide
    env = gym.make("CartPole-v1")
    first, again, other = random_return(env, 5), random_return(env, 5), random_return(env, 5, seed=7)
    assert first == again != other
    assert 10 < first < 60
