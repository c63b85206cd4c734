"""Evaluation: seeded, metered, with and without penalties, and Stable-Baselines3's own works on our agents."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents.loop.evaluate import Evaluation, evaluate_policy, undisturbed
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputePenaltyReward, RecordComputeStatistics
from tests.agents.small import CASES, EPISODE, make_agent, make_env


class Walk(gym.Env):
    """The reward of a step is the action; an episode has three steps; the seed of each reset is written down."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-9, 9, (1,))

    def __init__(self) -> None:
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.seeds.append(seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return np.zeros(1, np.float32), float(action[0]), False, self.steps == 3, {}


class Remembering:
    """A policy with a state: its action is how many steps of the episode it has seen; 10 FLOPs each."""

    def __init__(self) -> None:
        self.meter = ComputeMeter()

    def predict(self, observation: Any, state: int = 0, deterministic: bool = True) -> tuple[np.ndarray, int]:
        count = state + 1
        self.meter.add(10)
        return np.array([count], np.float32), count


def test_state_is_handed_back_and_starts_anew_with_each_episode() -> None:
    result = evaluate_policy(Remembering(), Walk(), episodes=2)
    assert result.returns == [1 + 2 + 3] * 2


def test_episodes_are_seeded_one_by_one() -> None:
    env = Walk()
    evaluate_policy(Remembering(), env, episodes=3, seed=7)
    assert env.seeds == [7, 8, 9]


def test_flops_are_what_the_policys_meter_was_charged() -> None:
    result = evaluate_policy(Remembering(), Walk(), episodes=2)
    assert result.flops == [30, 30]
    assert result.flops_per_step == 10


def test_no_step_of_another_environment_pays_for_an_evaluation_in_a_bare_one() -> None:
    policy = Remembering()
    env = RecordComputeStatistics(Walk(), policy.meter)
    observation, _ = env.reset()
    costs = []
    for _ in range(3):
        action, _ = policy.predict(observation)
        costs.append(env.step(action)[4]["cost"])
        assert evaluate_policy(policy, Walk(), episodes=2).flops == [30, 30]
    assert costs == [10, 10, 10]
    assert policy.meter.totals["act"] == 3 * (10 + 60)


def test_flops_are_counted_once_where_wrappers_read_the_same_meter() -> None:
    policy = Remembering()
    result = evaluate_policy(policy, RecordComputeStatistics(Walk(), policy.meter), episodes=2)
    assert result.flops == [30, 30]
    assert [report["flops"] for report in result.compute] == [30.0, 30.0]


def test_return_is_reported_with_and_without_penalty() -> None:
    policy = Remembering()
    env = RecordComputeStatistics(ComputePenaltyReward(Walk(), weight=0.01, meter=policy.meter), policy.meter)
    summary = evaluate_policy(policy, env, episodes=2).summary()
    # 6 for the actions, and three times 0.01 · 10 FLOPs off.
    assert summary["raw_return"] == pytest.approx(6.0)
    assert summary["return"] == pytest.approx(5.7)


def test_summary_has_means_and_deviations() -> None:
    result = Evaluation(returns=[1.0, 3.0], raw_returns=[2.0, 2.0], lengths=[1, 3], flops=[10, 50])
    assert result.summary() == {
        "return": 2.0,
        "return_std": 1.0,
        "raw_return": 2.0,
        "raw_return_std": 0.0,
        "length": 2.0,
        "flops_per_step": 15.0,  # 60 FLOPs over 4 steps
        "episodes": 2,
    }


def test_same_seed_gives_the_same_evaluation() -> None:
    agent, env = make_agent("sac"), make_env("Pendulum-v1")
    assert evaluate_policy(agent, env, 2).returns == evaluate_policy(agent, env, 2).returns


def test_no_episode_is_no_evaluation() -> None:
    with pytest.raises(ConfigError, match="episodes=0: expected at least 1"):
        evaluate_policy(Remembering(), Walk(), episodes=0)


def test_generators_and_accounts_are_put_back_even_after_an_error() -> None:
    agent = make_agent("sac")
    agent.predict(np.zeros(3, np.float32))
    before = agent.rng.bit_generator.state, agent.generator.get_state().tolist(), agent.meter.totals
    with pytest.raises(ZeroDivisionError), undisturbed(agent):
        agent.predict(np.zeros(3, np.float32), deterministic=False)
        raise ZeroDivisionError
    assert (agent.rng.bit_generator.state, agent.generator.get_state().tolist(), agent.meter.totals) == before


@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
@pytest.mark.parametrize("name", CASES)
def test_evaluate_policy_of_stable_baselines3_works_unchanged(name: str) -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    agent = make_agent(name)
    env = make_env(CASES[name][1])
    returns, lengths = evaluation.evaluate_policy(agent, env, n_eval_episodes=2, return_episode_rewards=True)
    assert len(returns) == len(lengths) == 2
    assert all(1 <= length <= EPISODE for length in lengths)


def test_evaluate_policy_of_stable_baselines3_agrees_with_ours() -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    vector = pytest.importorskip("stable_baselines3.common.vec_env")
    agent = make_agent("sac")
    ours = evaluate_policy(agent, make_env("Pendulum-v1"), episodes=1, seed=5)
    env = vector.DummyVecEnv([lambda: monitor.Monitor(make_env("Pendulum-v1"))])
    env.seed(5)
    theirs, _ = evaluation.evaluate_policy(agent, env, n_eval_episodes=1, return_episode_rewards=True)
    # Their Monitor rounds to six digits.
    assert ours.returns[0] == pytest.approx(theirs[0], abs=1e-5)


class Goal(Walk):
    """An episode is a success where its last action was above 0."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"is_success": np.float32(action[0] > 0)}


def test_success_is_what_the_last_step_of_an_episode_says() -> None:
    class Script:
        actions = iter([1, 1, -1, -1, -1, 1, 1, 1, 1, -1, 1, -1])  # four episodes of three steps

        def predict(self, observation: Any, **_: Any) -> tuple[np.ndarray, None]:
            return np.array([next(self.actions)], np.float32), None

    result = evaluate_policy(Script(), Goal(), episodes=4)
    assert result.successes == [False, True, True, False]
    assert result.summary()["success_rate"] == 0.5


def test_environments_that_know_no_success_report_none() -> None:
    agent = make_agent("sac")
    assert "success_rate" not in evaluate_policy(agent, make_env("Pendulum-v1"), episodes=1).summary()
