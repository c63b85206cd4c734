"""What each choice acted and cost is counted by the step; a coin costs that, or its row says by how much less."""

import gymnasium as gym
import numpy as np
import pytest

from agents import Asymmetric
from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.methods.exits import Exits
from agents.runs.run_config import RunConfig
from agents.studies.choosers import Chooser
from agents.studies.measuring import point_of

SMALL = {"small_net_arch": (4,), "buffer_size": 100}


def noted(agent: Asymmetric, steps: int) -> Chooser:
    """Return the chooser of ``agent`` after an episode of ``steps`` steps."""
    chooser = Chooser(agent)
    env = RunConfig("Pendulum-v1", max_episode_steps=steps).make_env(agent.meter)
    chooser.result = evaluate_policy(chooser, env, 1, REPORT_SEED)
    return chooser


def test_a_choice_that_the_end_of_an_episode_cuts_short_counts_the_steps_that_it_acted_in() -> None:
    agent = Asymmetric(gym.make("Pendulum-v1"), net_arch=(8, 8), hold=60, **SMALL)
    turns = iter([[0], [1]])
    agent.master.act = lambda rows, deterministic: np.array(next(turns))
    chooser = noted(agent, 70)
    assert chooser.shares.tolist() == pytest.approx([60 / 70, 10 / 70])
    assert {name: chooser.result.shares[name] for name in chooser.names} == pytest.approx(
        dict(zip(chooser.names, chooser.shares, strict=True))
    )


def test_a_coin_goes_by_what_a_sub_policy_with_exits_has_cost() -> None:
    agent = Asymmetric(
        gym.make("Pendulum-v1"), net_arch=(64, 64), hold=50, large_methods=[Exits(budget=0.1)], seed=3, **SMALL
    )
    chooser = noted(agent, 200)
    large = chooser.names.index("large")
    assert chooser.acted[large] > 0
    # Declared is the last exit; what has acted is less.
    assert chooser.mean_flops[large] < chooser.flops[large]
    asking = agent.master.flops_per_action * sum(chooser.counts.values())
    assert chooser.spent.sum() + asking == chooser.result.flops[0]


def test_a_coin_that_cannot_cost_as_much_says_how_much_less_it_costs() -> None:
    agent = Asymmetric(gym.make("Pendulum-v1"), net_arch=(8, 8), hold=1, **SMALL)
    chooser = noted(agent, 20)
    own = point_of("asymmetric", "own", 0, chooser.result, (), {})
    point = chooser.replaced("coin", RunConfig("Pendulum-v1", max_episode_steps=20).make_env(), own, 1)
    below = 1 - point.flops_per_step / own.flops_per_step
    assert f"{below:.0%} cheaper" in point.extras["what"]
    assert "same mean cost" not in point.extras["what"]
