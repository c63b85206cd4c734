"""RLlib: algorithms are metered to the digit, train as without, and what lives in other processes is refused."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("ray")
pytest.importorskip("tree")
pytest.importorskip("lz4")
pytest.importorskip("ormsgpack")

import ray
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.integrations.rllib import as_sub_policy, flops_per_action, log_compute, metered, unmeter
from budget_wrappers.metering import get_meter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

# RLlib registers the environment of each algorithm under the same name.
pytestmark = pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env-v0:UserWarning")

METER, EPISODE, BATCH = "test.rllib", 20, 16
# CartPole: O = 4, A = 2: an encoder 2·(4·8 + 8·8) = 192 and a head for the policy 2·8·2 = 32; DQN is dueling and has
# heads for advantages, 32, and for the value, 2·8·1 = 16.
PPO, DQN = 224, 240


class Wrapped(gym.Wrapper):
    """The environment that an ``env_config`` describes: RLlib makes it by itself."""

    def __init__(self, config: dict[str, Any]) -> None:
        env = gym.make(config.get("name", "CartPole-v1"), max_episode_steps=EPISODE)
        if "weight" in config:
            env = ComputePenaltyReward(env, weight=config["weight"], meter=METER)
        if "budget" in config:
            env = ComputeLimit(env, config["budget"], on_exhausted="truncate", meter=METER)
        if config.get("options"):
            left = FunctionPolicy(lambda observation: 0, flops=10, name="left")
            lean = FunctionPolicy(lambda observation: int(observation[2] > 0), flops=40, name="lean")
            env = SubPolicyAction(env, [left, lean], hold=3, weight=0.01, meter=METER)
        super().__init__(RecordComputeStatistics(env, METER) if config.get("recorded", True) else env)


def settings(config: Any, **env_config: Any) -> Any:
    """Return ``config`` for short runs on ``Wrapped``."""
    return (
        config.environment(Wrapped, env_config=env_config)
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8, 8]))
        .callbacks(on_episode_end=log_compute)
        .reporting(min_time_s_per_iteration=0, min_train_timesteps_per_iteration=0)
        .debugging(seed=0, log_level="ERROR")
    )


def ppo(**env_config: Any) -> Any:
    config = PPOConfig().training(train_batch_size=64, minibatch_size=32, num_epochs=2)
    return settings(config, **env_config)


def dqn(**env_config: Any) -> Any:
    buffer = {"type": "EpisodeReplayBuffer", "capacity": 500}
    config = DQNConfig().training(
        train_batch_size=BATCH, num_steps_sampled_before_learning_starts=20, replay_buffer_config=buffer
    )
    return settings(config, **env_config).reporting(min_sample_timesteps_per_iteration=60)


CASES: dict[str, Callable[..., Any]] = {"ppo": ppo, "dqn": dqn}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, logging_level="ERROR")
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """Build algorithms that are stopped in the end, on a meter that starts from 0."""
    built: list[Any] = []

    def make(config: Any) -> Any:
        algo = config.build_algo()
        built.append(algo)
        if getattr(algo, "local_replay_buffer", None) is not None:
            algo.local_replay_buffer.rng = np.random.default_rng(0)  # RLlib gives its buffer no seed
        return algo

    meter = get_meter(METER)
    meter.reset_totals()
    yield make
    for algo in built:
        algo.stop()
    meter.unwatch()


def weights(algo: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in algo.learner_group._learner.module["default_policy"].state_dict().values()]


def counted_by_torch(algo: Any, iterations: int) -> int:
    """Train and return what torch's own counter sees in the updates."""
    total, learner = 0, algo.learner_group._learner
    update = learner.update

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            result = update(*args, **kwargs)
        total += counter.get_total_flops()
        return result

    learner.update = counted
    for _ in range(iterations):
        algo.train()
    return total


# ---- learning and acting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_metered_run_with_a_penalty_of_0_is_the_unwrapped_run(case: str, build: Any) -> None:
    meter = get_meter(METER)
    algo = metered(build(CASES[case](weight=0.0)), METER)
    for _ in range(2):
        algo.train()
    totals = dict(meter.totals)
    plain = build(CASES[case](recorded=False))
    counted = counted_by_torch(plain, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights(algo), weights(plain), strict=True))
    assert totals["learn"] == counted > 0
    assert dict(meter.totals) == totals  # the other one is not metered


def test_ppo_acting_is_its_policy_side_alone(build: Any) -> None:
    algo = metered(build(ppo()), METER)
    metrics = algo.train()["env_runners"]
    assert flops_per_action(algo) == PPO
    # One action a step, and one more after each episode that no step takes.
    actions = metrics["num_env_steps_sampled"] + metrics["num_episodes"]
    assert get_meter(METER).totals["act"] == actions * PPO
    assert {name for name, flops in get_meter(METER).by_name.items() if flops} == {"encoder", "pi"}
    assert metrics["compute"]["flops_per_step"] == PPO


def test_both_returns_are_logged(build: Any) -> None:
    algo = metered(build(ppo(weight=0.001)), METER)
    metrics = algo.train()["env_runners"]
    report = metrics["compute"]
    # A reward of 1 a step, less 0.001 a FLOP.
    assert report["return_raw"] == pytest.approx(report["steps"])
    assert report["return_penalised"] == pytest.approx(report["steps"] * (1 - 0.001 * PPO))
    assert metrics["episode_return_mean"] == pytest.approx(report["return_penalised"], rel=1e-6)


def test_dqn_acts_and_learns_after_its_random_steps(build: Any) -> None:
    algo = metered(build(dqn()), METER)
    assert flops_per_action(algo) == DQN
    algo.train()
    spent = get_meter(METER).totals
    assert spent["act"] > 0
    assert spent["act"] % DQN == 0
    assert spent["learn"] > 0
    assert algo.meter is get_meter(METER)


# ---- nothing is left behind -----------------------------------------------------------------------------------------


def test_unmeter_leaves_no_trace(build: Any) -> None:
    algo = build(ppo())
    module, learner = algo.env_runner.module, algo.learner_group._learner
    before = [dict(vars(part)) for part in (algo, module, learner)]
    with pytest.raises(MeterError, match="not metered"):
        unmeter(algo)
    metered(algo, METER)
    with pytest.raises(MeterError, match="metered already"):
        metered(algo)
    assert unmeter(algo) is algo
    assert [dict(vars(part)) for part in (algo, module, learner)] == before
    assert all(not part._forward_hooks for part in module.modules())


def test_checkpoints_hold_nothing_of_the_meter(build: Any, tmp_path: Path) -> None:
    algo = metered(build(ppo()), METER)
    algo.save_to_path(tmp_path)
    other = build(ppo())
    other.restore_from_path(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights(algo), weights(other), strict=True))
    before = get_meter(METER).totals["act"]
    as_sub_policy(other)(np.zeros(4, np.float32))
    assert get_meter(METER).totals["act"] == before


def test_what_lives_in_other_processes_is_refused(build: Any) -> None:
    algo = build(ppo(recorded=False).env_runners(num_env_runners=1))
    with pytest.raises(MeterError, match=r"num_env_runners=1.*Configure env_runners\(num_env_runners=0\)"):
        metered(algo, METER)


def test_what_is_no_algorithm_is_named() -> None:
    with pytest.raises(ConfigError, match=r"got a object; expected an algorithm of RLlib's new API stack"):
        metered(object())


# ---- budgets, sub-policies, and the master --------------------------------------------------------------------------


def test_budget_is_set_at_run_time(build: Any) -> None:
    algo = metered(build(ppo(budget=10**6, name="Pendulum-v1")), METER)
    # Pendulum: O = 3, a mean and a deviation: 2·(3·8 + 8·8 + 8·2) = 208.
    assert flops_per_action(algo) == 208
    algo.train()
    runner = algo.env_runner
    for steps in (3, 5):
        runner.env.unwrapped.call("set_budget", steps * 208)
        episodes = runner.sample(num_episodes=3, force_reset=True)
        assert [len(episode) for episode in episodes] == [steps] * 3
        assert all(episode.is_truncated for episode in episodes)


def test_algorithm_as_sub_policy_acts_in_bounds(build: Any) -> None:
    algo = build(settings(SACConfig(), name="Pendulum-v1", recorded=False))
    policy = as_sub_policy(algo, "sac")
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    assert (policy.name, policy.flops) == ("sac", 208)
    with torch.no_grad():
        logits = algo.get_module().forward_inference({"obs": torch.as_tensor(observation)[None]})["action_dist_inputs"]
    # What RLlib takes for the mode of its squashed Gaussian is the mean, brought from [−1, 1] to [−2, 2].
    np.testing.assert_allclose(policy(observation), np.clip(2 * logits[0, :1].numpy(), -2, 2), rtol=1e-5)
    explored = as_sub_policy(algo, deterministic=False)
    assert explored.name == "SAC"
    assert len({float(explored(observation)[0]) for _ in range(5)}) == 5


def test_discrete_sub_policy_returns_an_index(build: Any) -> None:
    algo = build(dqn(recorded=False))
    observation = np.zeros(4, np.float32)
    action = as_sub_policy(algo)(observation)
    assert gym.spaces.Discrete(2).contains(action)
    assert gym.spaces.Discrete(2).contains(as_sub_policy(algo, deterministic=False)(observation))


def test_dqn_is_the_master_of_sub_policies(build: Any) -> None:
    meter = get_meter(METER)
    master = build(dqn(options=True))
    before = weights(master)
    metrics = metered(master, METER).train()["env_runners"]
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(master), strict=True))
    spent = {name: flops for name, flops in meter.by_name.items() if flops}
    assert set(spent) == {"left", "lean", "encoder", "af", "vf"}
    assert spent["left"] % 10 == spent["lean"] % 40 == 0
    assert set(metrics["compute"]["share_steps"]) >= {"left", "lean"}
