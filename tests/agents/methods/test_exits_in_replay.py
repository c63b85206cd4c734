"""Which exit acted: noted with every transition, kept by checkpoints, shown by evaluations beside the budget."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import BexaDQN, BexaSAC, BexaTD3
from agents.cli.evaluation import evaluation_lines
from agents.loop.evaluate import Evaluation, evaluate_policy
from agents.replay.buffers import ReplayBuffer
from agents.runs.monitors import Evaluate
from budget_wrappers.wrappers import RecordComputeStatistics
from tests.gymnasium_versions import AutoresetMode, sync

SETTINGS: dict[str, Any] = {"net_arch": (8, 8), "batch_size": 8, "learning_starts": 20, "buffer_size": 500, "seed": 3}


def counted(agent: Any) -> np.ndarray:
    """Return how many transitions of the replay each exit chose."""
    held = agent.replay.acted_by[: agent.replay.size].numpy()
    return np.bincount(held[held >= 0], minlength=len(agent.exits.names))


@pytest.mark.parametrize("agent_class", [BexaSAC, BexaTD3])
def test_every_transition_names_the_exit_that_chose_it(agent_class: Any) -> None:
    agent = agent_class(gym.make("Pendulum-v1"), **SETTINGS)
    agent.learn(120)
    assert (agent.replay.acted_by[:20] == -1).all()  # random, before learning starts
    assert counted(agent).tolist() == agent.exits.counts.tolist()
    assert counted(agent).sum() == 100


def test_exploring_rows_of_dqn_name_no_exit() -> None:
    agent = BexaDQN(gym.make("CartPole-v1"), exploration_final_eps=0.5, exploration_fraction=0.01, **SETTINGS)
    agent.learn(300)
    assert counted(agent).tolist() == agent.exits.counts.tolist()
    assert 80 < counted(agent).sum() < 200  # half of 280


def test_what_the_noted_exit_says_is_the_action_of_its_row() -> None:
    # Exit i says a constant of its own, so that each stored action tells who chose it.
    agent = BexaTD3(gym.make("Pendulum-v1"), exploration_noise=0.0, learning_rate=1e-12, **SETTINGS)
    with torch.no_grad():
        for number, layer in enumerate(agent.policy.exits):
            layer.weight.zero_()
            layer.bias.fill_(0.0)  # gates open half of the time
            layer.bias[0] = 0.3 * number
    agent.learn(200)
    who, action = agent.replay.acted_by[20:200].long(), agent.replay.action[20:200, 0]
    assert set(who.tolist()) == {0, 1, 2}
    torch.testing.assert_close(action, torch.tanh(0.3 * who))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_rows_of_a_vector_environment_that_only_reset_are_left_out(mode: AutoresetMode) -> None:
    env = sync([lambda: gym.make("Pendulum-v1", max_episode_steps=7)] * 3, mode)
    agent = BexaTD3(env, exploration_noise=0.0, **SETTINGS)
    agent.learn(150)
    # A row that only resets has acted, and is charged, but is no transition.
    reset_rows = int(agent.exits.counts.sum()) - int(counted(agent).sum())
    assert (reset_rows > 0) == (mode is AutoresetMode.NEXT_STEP)
    assert (agent.replay.acted_by[: agent.replay.size] >= 0).sum() == counted(agent).sum()


def test_a_ring_that_is_full_names_the_newest() -> None:
    replay = ReplayBuffer(4, (1,), (1,))
    for number in range(6):
        row = np.full((1, 1), number, dtype=np.float32)
        replay.add(row, row, np.zeros(1), row, np.zeros(1, dtype=bool), np.zeros(1, dtype=bool))
        replay.note_acting(np.array([number]))
    assert replay.acted_by is not None
    assert replay.acted_by.tolist() == [4, 5, 2, 3]
    assert replay.action[:, 0].tolist() == [4.0, 5.0, 2.0, 3.0]


def test_checkpoints_keep_who_acted(tmp_path: Path) -> None:
    agent = BexaSAC(gym.make("Pendulum-v1"), **SETTINGS)
    agent.learn(200)
    agent.save(tmp_path / "agent", replay=True)
    again = BexaSAC.load(tmp_path / "agent.safetensors", gym.make("Pendulum-v1"))
    assert torch.equal(again.replay.acted_by[:200], agent.replay.acted_by[:200])
    assert {key: float(value) for key, value in again.replay_shares().items()} == pytest.approx(
        {key: float(value) for key, value in agent.replay_shares().items()}
    )


def test_shares_of_the_replay_are_logged_and_random_ones_are_missing_from_them() -> None:
    agent = BexaSAC(gym.make("Pendulum-v1"), **SETTINGS)
    agent.learn(100)
    logged = agent.logged()
    assert sum(float(logged[f"replay/{name}"]) for name in agent.exits.names) == pytest.approx(0.8)  # 80 of 100


def test_an_evaluation_shows_shares_and_executed_cost_beside_the_budget() -> None:
    env = RecordComputeStatistics(gym.make("Pendulum-v1"))
    agent = BexaSAC(env, budget=0.3, **SETTINGS)
    callback = Evaluate(env, every=100, episodes=2)
    agent.learn(200, callback=callback)
    point = callback.curve[0]
    shares = [point[f"share/{name}"] for name in agent.exits.names]
    assert sum(shares) == pytest.approx(1)
    # exit costs are normalised FLOPs: 0, c₂, 1
    assert point["cost"] == pytest.approx(float(np.dot(shares, agent.teacher.costs)))
    assert point["cost"] == pytest.approx(agent.exits.normalised(point["flops_per_step"]))
    assert point["budget"] == 0.3
    json.dumps(point)


def test_the_command_line_shows_them() -> None:
    env = RecordComputeStatistics(gym.make("Pendulum-v1"))
    agent = BexaSAC(env, budget=0.3, **SETTINGS)
    agent.learn(30)
    result = evaluate_policy(agent, env, 1)
    lines = evaluation_lines(result, "agent", agent.spending(result.shares))
    assert any(line.startswith("  acted by") and "exit 1" in line and "exit 3" in line for line in lines)
    assert any(line.startswith("  executed cost") and line.endswith("(budget 0.3)") for line in lines)


def test_shares_weigh_episodes_by_their_steps() -> None:
    compute = [{"share_steps": {"a": 1.0}}, {"share_steps": {"a": 0.5, "b": 0.5}}]
    result = Evaluation([0.0, 0.0], [0.0, 0.0], [30, 10], [0, 0], compute=compute)
    assert result.shares == pytest.approx({"a": 35 / 40, "b": 5 / 40})
