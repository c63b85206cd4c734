"""Asymmetric sub-policies with hindsight: for the sub-policies whatever the options were, and for the options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.methods.asymmetric import Asymmetric, AsymmetricConfig
from agents.replay.hindsight import GoalSlices
from agents.replay.hindsight_options import HindsightOptions, OptionTrace
from agents.runs.monitors import Checkpoint
from budget_wrappers.errors import ConfigError, NonFiniteError, SpaceError
from budget_wrappers.wrappers.options import PrimitiveTransition
from tests.agents.methods.test_asymmetric import SETTINGS, Counter, weights
from tests.agents.test_hindsight import Line


def make(**settings: Any) -> Asymmetric:
    return Asymmetric(Line(discrete=False, length=7), **{**SETTINGS, "hindsight": 4, **settings})


def seen(place: float) -> dict[str, np.ndarray]:
    return {"achieved_goal": np.array([place])}


def walk(trace: OptionTrace, *places: float) -> None:
    """Let ``trace`` follow an option through ``places``, each step paid −1; the first place follows a reset."""
    before = getattr(trace, "last", None) or seen(0)
    for place in places:
        after = seen(place)
        trace(PrimitiveTransition(before, None, -1.0, after, False, False, 0, {}))
        before = trace.last = after


def two_options() -> HindsightOptions:
    """An episode that asks for −9: an option over 1, 2, 3 at a price of .5, one over 4, 5 at a price of .25."""
    trace = OptionTrace()
    replay = HindsightOptions(
        5,
        (2,),
        GoalSlices(slice(0, 1), slice(1, 2)),
        lambda achieved, desired: -(np.abs(achieved - desired)[:, 0] > 0.5).astype(np.float32),
        trace=trace,
        longest=3,
    )
    for places, price, over in (((1, 2, 3), 0.5, False), ((4, 5), 0.25, True)):
        walk(trace, *places)
        before, after = np.array([[places[0] - 1, -9.0]]), np.array([[places[-1], -9.0]])
        reward, flag = np.array([-len(places) - price]), np.array([False])
        replay.add(before, np.array([0]), reward, after, flag, np.array([over]))
    return replay


def test_an_option_is_paid_for_every_step_under_the_other_goal_less_the_same_price() -> None:
    batch = two_options().sample(200, torch.Generator().manual_seed(0))
    paid = {(int(o[0]), int(o[1])): float(r) for o, r in zip(batch.observation, batch.reward, strict=True)}
    # The first option misses a goal of 3 twice of its three steps, one of 5 thrice; the second one misses 5 once.
    expected = {(0, 3): -2.5, (0, 5): -3.5, (3, 5): -1.25, (0, -9): -3.5, (3, -9): -2.25}
    assert paid == expected


def test_a_step_after_a_reset_forgets_the_option_that_was_broken_off() -> None:
    trace = OptionTrace()
    walk(trace, 1, 2)
    trace.last = None
    walk(trace, 7)
    reached, earned = trace.take()
    assert (reached.tolist(), earned) == ([[7.0]], -1.0)


def test_options_of_a_run_are_paid_as_the_environment_paid_them_under_their_own_goal() -> None:
    agent = make(master_hindsight=4, hold=(1, 5))
    agent.learn(140)
    replay = agent.master.replay.replay
    assert len(replay) > 10
    index = torch.arange(len(replay))
    own = replay.observation[index, 1:2]
    assert torch.allclose(replay.rewards_under(index, own), replay.reward[index])
    assert set(replay.lasted[index].tolist()) > {1, 5}  # and those that the end of an episode cut short
    costs = torch.as_tensor(agent.options.costs, dtype=torch.float32)[replay.action[index] % 2]
    assert torch.allclose(replay.price[index], 0.1 * costs * replay.lasted[index])
    goals = set(agent.master.replay.sample(200, agent.generator).observation[:, 1].tolist())
    assert goals - {-4.0, -3.0, 3.0, 4.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"master_hindsight": -1}, "master_hindsight=-1: expected 0 or more"),
        ({"master_hindsight": 4, "master_prioritized": True}, "expected 0 with master_prioritized=True"),
    ],
)
def test_hindsight_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AsymmetricConfig(**settings)


def test_hindsight_of_the_master_needs_goals() -> None:
    with pytest.raises(SpaceError, match="expected a Dict with achieved_goal and desired_goal"):
        Asymmetric(Counter(), **SETTINGS, master_hindsight=4)


def test_without_it_the_shared_replay_relabels_and_the_master_s_does_not() -> None:
    agent = make()
    agent.learn(70)
    assert agent.large.replay is agent.small.replay
    sub_policies, master = agent.small.replay.sample(400, agent.generator), agent.master.replay.replay
    # Observations are (achieved, desired, position): goals are ±3 and ±4, an achieved one may be any of −7 … 7.
    assert set(sub_policies.observation[:, 1].tolist()) - {-4.0, -3.0, 3.0, 4.0}
    assert set(master.observation[: len(master), 1].tolist()) <= {-4.0, -3.0, 3.0, 4.0}
    # Rewards are those of the goal in the row: 0 where the step reaches it, −1 elsewhere.
    reached = (sub_policies.next_observation[:, 0] - sub_policies.next_observation[:, 1]).abs() < 0.5
    assert torch.equal(sub_policies.reward, -(~reached).float())


@pytest.mark.parametrize("goals", [0, 4])
def test_a_resumed_run_is_the_same(goals: int, tmp_path: Path) -> None:
    whole, first = make(master_hindsight=goals), make(master_hindsight=goals)
    path = tmp_path / "checkpoint.safetensors"
    whole.learn(70)
    first.learn(70, [Checkpoint(path, 30), lambda agent: agent.num_timesteps < 50])
    second = Asymmetric.load(path, Line(discrete=False, length=7))
    second.learn(70 - second.num_timesteps)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_rewards_under_another_goal_are_finite_over_the_steps_of_an_option() -> None:
    replay = two_options()
    replay.reward_of = lambda achieved, desired: np.full(len(achieved), 1.5e38, dtype=np.float32)
    goal = torch.zeros(1, 1)
    # The first option lasted 3 steps, the second one 2: 4.5e38 is above 3.4e38, the largest of float32.
    assert float(replay.rewards_under(torch.tensor([1]), goal)) == pytest.approx(3e38)
    with pytest.raises(NonFiniteError, match=r"compute_reward .* of at most 3.4e\+38"):
        replay.rewards_under(torch.tensor([0]), goal)


def test_options_know_the_scale_of_the_masters_rewards() -> None:
    agent = make(master_hindsight=4, master_reward_scale=10.0)
    largest = float(np.finfo(np.float32).max)
    assert agent.master.replay.replay.largest_reward == pytest.approx(largest / 10)
