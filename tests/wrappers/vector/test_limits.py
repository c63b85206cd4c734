"""Budgets of the environments of a batch, and limits that end their episodes."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import vector
from budget_wrappers.wrappers.vector import BudgetAwareObservation, ComputeLimit, RecordComputeStatistics
from budget_wrappers.wrappers.vector.modes import find_in_vector
from tests.gymnasium_versions import VERSION, AutoresetMode, needs_masks
from tests.wrappers.vector.test_traps import DISABLED, NEXT, SAME, make, step


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


class Foreign:
    """Another library's vector environment, which takes no masks."""

    num_envs = 2
    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros((2, 1), np.float32), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        return np.zeros((2, 1), np.float32), np.ones(2), np.zeros(2, bool), np.zeros(2, bool), {}


def test_budgets_are_for_all_or_for_each(meter: ComputeMeter) -> None:
    """By a method and by reset, as ``set_attr`` splits lists over environments."""
    envs = BudgetAwareObservation(ComputeLimit(make(), 300, meter=meter))
    envs.reset(options={"budget": [100, 200]})
    assert find_in_vector(envs, "remaining").tolist() == [100, 200]
    envs.set_budget(400)
    assert find_in_vector(envs, "remaining").tolist() == [100, 200]  # a limit holds for a whole episode
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert find_in_vector(envs, "remaining").tolist() == [400, 200]
    observations = step(envs, meter, [100, 50])[0]
    assert observations[:, -1].tolist() == [0.75, 0.75]


@pytest.mark.parametrize("budget", [[0.1], [0.1, 0.2, 0.3], [0.1, 1.2], 2.0, float("nan")])
def test_budgets_that_cannot_be_are_refused(budget: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected (one number for all|a share)"):
        BudgetAwareObservation(make(), "budget").set_budget(budget)


@pytest.mark.parametrize(
    "make_envs",
    [
        lambda: gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point"),
        lambda: vector.as_vector_env(Foreign(), SAME),
    ],
    ids=["vector_entry_point", "foreign"],
)
def test_a_limit_where_environments_reset_themselves_and_take_no_mask_is_refused_with_the_remedy(
    make_envs: Any,
) -> None:
    with pytest.raises(ConfigError, match=r"resets its environments by itself.*AutoresetMode\.DISABLED"):
        ComputeLimit(make_envs(), 300)


@needs_masks
@pytest.mark.skipif(VERSION < (1, 4), reason="before 1.4 Gymnasium's recorder takes a SAME_STEP reset for a step")
@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_gymnasiums_own_recorder_outside_a_limit_sees_the_episodes_that_it_ends(
    mode: AutoresetMode, meter: ComputeMeter
) -> None:
    envs = RecordEpisodeStatistics(ComputeLimit(make(mode), 8, meter=meter))
    envs.reset(seed=0)
    lengths = []
    for _ in range(8):  # rows of 4 and of 1 FLOPs a step: the first ends after two steps, whose rewards are 1 and 2
        infos = step(envs, meter, [4, 1])[4]
        if infos.get("_episode", np.zeros(2))[0]:
            lengths.append((int(infos["episode"]["l"][0]), float(infos["episode"]["r"][0])))
    assert lengths == [(2, 3.0)] * (4 if mode is SAME else 3)


@needs_masks
def test_a_step_thrown_away_before_a_reset_ends_nothing(meter: ComputeMeter) -> None:
    """The limit ends the first row after 2 steps; in ``NEXT_STEP`` its third, in which the environment would have
    ended too, is thrown away: no second end, no reward, no account."""
    envs = RecordComputeStatistics(ComputeLimit(make(NEXT, ends=(3, None)), 8, meter=meter), meter)
    envs.reset(seed=0)
    ends = []
    for _ in range(4):
        _, rewards, terminations, truncations, infos = step(envs, meter, [4, 1])
        accounted = bool(infos["_compute"][0]) if "compute" in infos else False
        ends.append(
            (float(rewards[0]), bool(terminations[0]), bool(truncations[0]), accounted, float(infos["cost"][0]))
        )
    assert ends == [
        (1.0, False, False, False, 4.0),
        (2.0, False, True, True, 4.0),
        (0.0, False, False, False, 0.0),
        (1.0, False, False, False, 4.0),
    ]


@needs_masks
@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
def test_a_reset_by_the_caller_replaces_one_that_was_due(mode: AutoresetMode, meter: ComputeMeter) -> None:
    envs = ComputeLimit(make(mode), 8, meter=meter)
    envs.reset(seed=0)
    assert step(envs, meter, [8, 1])[3].tolist() == [True, False]
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert step(envs, meter, [4, 1])[1].tolist() == [1.0, 2.0]
    assert envs.remaining.tolist() == [4, 6]
    step(envs, meter, [4, 1])
    envs.reset()
    assert step(envs, meter, [1, 1])[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("limited", [True, False])
def test_a_budget_given_with_a_mask_is_that_of_the_rows_it_resets(limited: bool, meter: ComputeMeter) -> None:
    """Not of the next episodes of the others."""
    inner, first, second = make(), (200, 0.5)[not limited], (400, 0.25)[not limited]
    envs = BudgetAwareObservation(ComputeLimit(inner, 800, meter=meter) if limited else inner, "budget")
    shares = [first / 800, second / 800] if limited else [first, second]
    envs.reset(options={"budget": first})
    only_first = np.array([True, False])
    assert envs.reset(options={"budget": second, "reset_mask": only_first})[0][:, -1].tolist() == shares[::-1]
    assert envs.reset()[0][:, -1].tolist() == shares[::-1]
    envs.set_budget([first, second], only_first)
    assert envs.reset()[0][:, -1].tolist() == [shares[0], shares[0]]


@pytest.mark.parametrize("what", ["cheapest", "hold", "stop"])
def test_a_limit_that_would_choose_belongs_inside(what: Any) -> None:
    with pytest.raises(ConfigError, match="around each environment"):
        ComputeLimit(make(), 300, what)


@pytest.mark.parametrize("kind", ["truncate", "terminate"])
def test_an_exhausted_limit_ends_its_own_row(kind: Any, meter: ComputeMeter) -> None:
    envs = ComputeLimit(make(), 100, kind, meter)
    envs.reset()
    _, _, terminations, truncations, _ = step(envs, meter, [100, 99])
    ended = terminations if kind == "terminate" else truncations
    assert (ended.tolist(), (terminations & truncations).any()) == ([True, False], False)
