"""Budgets in the observations of vector environments, as agents with exits read them: each row has its own."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics

from agents import BexaDQN, BexaSAC
from budget_wrappers.errors import ConfigError, WrapperOrderError
from budget_wrappers.wrappers import BudgetAwareObservation, vector
from tests.agents.methods.test_bexa import SETTINGS


def envs(name: str = "Pendulum-v1", **settings: Any) -> Any:
    made = gym.make_vec(name, num_envs=3, vectorization_mode="sync", max_episode_steps=15)
    return vector.BudgetAwareObservation(made, "budget", **{"draw": (0.0, 1.0), **settings})


def conditioned(made: Any, agent_class: Any = BexaSAC) -> Any:
    return agent_class(made, **SETTINGS, budget_from_observation=True)


@pytest.mark.parametrize(("agent_class", "name"), [(BexaSAC, "Pendulum-v1"), (BexaDQN, "CartPole-v1")])
def test_the_budgets_drawn_for_each_row_reach_the_programs(agent_class: Any, name: str) -> None:
    agent, programs = conditioned(RecordEpisodeStatistics(envs(name)), agent_class), []
    target = agent.teacher.target
    agent.teacher.target = lambda values, budget, *rest: programs.append(budget) or target(values, budget, *rest)
    agent.learn(150)
    held = agent.replay.observation[: len(agent.replay), -1]
    assert len(held.unique()) > 6  # three environments, some episodes
    assert len(programs) == agent.num_updates > 0
    assert all(budget.shape == (SETTINGS["batch_size"],) for budget in programs)
    assert torch.isin(torch.cat(programs), held).all()


def test_a_budget_set_on_the_agent_is_what_every_row_sees_from_the_next_reset_on() -> None:
    agent = conditioned(envs()).learn(60)
    agent.set_budget(0.25)
    assert agent.env.reset()[0][:, -1].tolist() == [0.25] * 3
    rows = len(agent.replay)
    agent.learn(60)
    assert set(agent.replay.observation[rows : len(agent.replay), -1].tolist()) == {0.25}
    agent.set_budget([0.25, 0.5, None])
    assert agent.env.reset()[0][:2, -1].tolist() == [0.25, 0.5]
    assert agent.env.reset(options={"budget": [0.0, 0.5, 1.0]})[0][:, -1].tolist() == [0.0, 0.5, 1.0]
    assert agent.given_budget == [0.0, 0.5, 1.0]
    with pytest.raises(ConfigError, match="one for each of 3"):
        agent.set_budget([0.1, 0.2])


def test_rows_of_one_call_act_by_their_own_budgets() -> None:
    agent = conditioned(envs())
    with torch.no_grad():  # the first gate opens where the budget is below a half
        agent.policy.exits[0].weight[-1] = torch.tensor([0.0, 0.0, 0.0, -1e6])
        agent.policy.exits[0].bias[-1] = 5e5
    agent.set_budget([0.1, 0.9, 0.2])
    agent.predict(agent.env.reset(seed=0)[0])
    assert (agent.exits.taken == 0).tolist() == [True, False, True]


def test_budgets_given_to_rows_outlive_a_checkpoint(tmp_path: Path) -> None:
    agent = conditioned(envs())
    agent.set_budget([0.25, 0.5, None])
    agent.save(tmp_path / "agent")
    assert BexaSAC.load(tmp_path / "agent.safetensors", envs()).given_budget == [0.25, 0.5, None]
    one = BudgetAwareObservation(gym.make("Pendulum-v1"), "budget")
    for take in (lambda: BexaSAC.load(tmp_path / "agent.safetensors", one), lambda: agent.set_env(one)):
        with pytest.raises(ConfigError, match="of 3 environments: expected as many here, where there are 1"):
            take()
    assert agent.env is not one


@pytest.mark.parametrize(
    "made",
    [
        lambda: SyncVectorEnv([lambda: BudgetAwareObservation(gym.make("Pendulum-v1"), "budget")] * 2),
        lambda: gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync"),
        lambda: envs(draw=None, flatten=False),
        lambda: NormalizeObservation(envs()),
    ],
)
def test_vector_environments_that_no_vector_wrapper_tells_a_budget_are_refused_with_the_remedy(made: Any) -> None:
    with pytest.raises(WrapperOrderError, match=r"expected budget_wrappers.wrappers.vector.BudgetAwareObservation"):
        conditioned(made())
