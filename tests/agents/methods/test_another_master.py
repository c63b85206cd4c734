"""Sub-policies that learn while somebody else's agent is their master."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.dqn import DQN
from agents.methods.asymmetric import AsymmetricConfig
from benchmarks.asymmetric import sb3_master, study
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics
from tests.agents.methods.test_asymmetric import LARGE, SMALL, Counter, make


def test_both_sub_policies_learn_once_a_step_and_the_recipe_s_master_never() -> None:
    agent = make(learning_starts=20)
    options = agent.options_for_another_master()
    options.reset(seed=0)
    for choice in (0, 1, 1, 0):
        options.step(choice)
    # 4 choices of 5 steps; the first update is that of step 21
    assert [part.num_timesteps for part in agent.parts.values()] == [20, 20, 0]
    options.step(1)  # 3 steps to the time limit of 23
    assert [part.num_updates for part in agent.parts.values()] == [3, 3, 0]
    assert (len(agent.small.replay), len(agent.master.replay)) == (23, 0)


def test_the_agent_s_own_options_are_not_touched() -> None:
    agent = make(Counter(truncate=7))
    agent.options_for_another_master()
    agent.learn(14)
    assert len(agent.small.replay) == 14


def test_our_dqn_as_another_master_pays_for_what_runs() -> None:
    meter = ComputeMeter()
    agent = make(RecordComputeStatistics(gym.make("Pendulum-v1", max_episode_steps=23), meter))
    env = RecordComputeStatistics(agent.options_for_another_master(), meter)
    master = DQN(env, meter=meter, net_arch=(8,), learning_starts=4, batch_size=4, buffer_size=50, train_freq=1)
    master.learn(10)  # decisions: two episodes of 23 steps
    spent = meter.totals.by_name
    assert spent["small"] % SMALL == spent["large"] % LARGE == 0
    assert spent["small"] // SMALL + spent["large"] // LARGE == 46
    assert master.num_updates == 6


def test_an_unmodified_stable_baselines3_dqn_is_a_master() -> None:
    library = pytest.importorskip("stable_baselines3")
    agent = make()
    before = [tensor.clone() for tensor in agent.large.policy.parameters()]
    master = library.DQN(
        "MlpPolicy",
        RecordComputeStatistics(agent.options_for_another_master(), agent.meter),
        learning_starts=4,
        train_freq=1,
        gradient_steps=5,
        policy_kwargs={"net_arch": [8]},
        seed=0,
    )
    master.learn(15)  # three episodes of 23 steps
    assert agent.small.num_timesteps == 69
    assert agent.small.num_updates == 69 - 20
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.large.policy.parameters(), strict=True))
    choice, _ = master.predict(np.zeros(3, np.float32), deterministic=True)
    assert int(choice) in (0, 1)


def test_the_clocks_of_a_master_that_counts_decisions_are_converted() -> None:
    pytest.importorskip("stable_baselines3")
    settings = sb3_master.converted(AsymmetricConfig(hold=5, gamma=0.99))
    # 1,000 steps are 200 decisions, 500 are 100; five updates a decision are one a step; .99⁵ a decision
    assert (settings["learning_starts"], settings["target_update_interval"]) == (200, 100)
    assert (settings["train_freq"], settings["gradient_steps"]) == (1, 5)
    assert settings["gamma"] == pytest.approx(0.99**5)


def test_the_study_s_row_with_a_third_party_master(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    monkeypatch.setitem(study.EPISODES, "mountain-car", 1)
    record = sb3_master.train("mountain-car", 0, {"steps": 1_200, "learning_starts": 1_100})
    assert record["environment_steps"] >= 1_200
    assert record["decisions"] >= 240
    final = record["final"]["deterministic"]
    share, master = final["share_large"], 2_304 / 5
    # every step runs 192 or 8,704 FLOPs, every fifth the master's 2,304
    assert final["flops_per_step"] == pytest.approx(192 + share * (8_704 - 192) + master, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"master_dueling": True}, "master_dueling=True: expected False with this master"),
        ({"master_reward_scale": 0.1}, r"master_reward_scale=0.1: expected 1.0"),
        ({"hold": (1, 5)}, r"hold=\(1, 5\): expected one number"),
    ],
)
def test_what_a_third_party_master_cannot_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sb3_master.converted(AsymmetricConfig(**settings))


def test_a_short_interval_stays_at_least_one_decision_and_plain_discounts_stay_plain() -> None:
    settings = sb3_master.converted(AsymmetricConfig(master_target_update_interval=3, bootstrap="gamma"))
    assert (settings["target_update_interval"], settings["gamma"]) == (1, 0.99)


def test_a_reset_from_outside_ends_the_episode_for_noise_and_returns() -> None:
    agent = make(Counter(), n_step=3, correlated_noise=0.5, learning_starts=0)
    options = agent.options_for_another_master()
    options.reset()
    options.step(0)
    assert agent.noise.value[0, 0] != 0
    heard = []
    options.subscribe(lambda step: heard.append(float(agent.noise.value[0, 0])))
    before = agent.noise.value.copy()
    options.reset()
    options.step(0)
    # x ← (1 − θ)·x + σ·N, θ = .15: from 0 it is the first draw alone, whatever x was before the reset
    replay = agent.small.replay
    assert replay.follower[4].item() == -1  # the fifth step has no next one
    assert replay.follower[5].item() == 6
    assert heard[0] != pytest.approx(float(before[0, 0]))
