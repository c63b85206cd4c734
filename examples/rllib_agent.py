"""Meter an RLlib algorithm: PPO on CartPole under a penalty and a budget, then the same algorithm as a sub-policy."""

import os
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder

import gymnasium as gym
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from budget_wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, get_meter
from budget_wrappers.integrations.rllib import as_sub_policy, log_compute, metered


def make(config: dict[str, Any]) -> gym.Env:
    """Return the environment; wrappers get the meter's name, as RLlib pickles what it is given."""
    limited = ComputeLimit(gym.make("CartPole-v1"), max_flops=10_000_000, on_exhausted="truncate")
    return RecordComputeStatistics(ComputePenaltyReward(limited, weight=1e-5))


ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, logging_level="ERROR")
register_env("wrapped", make)
config = (
    PPOConfig()
    .environment("wrapped")
    .env_runners(num_env_runners=0)  # a meter lives in one process
    .learners(num_learners=0)
    .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[32, 32]))
    .training(train_batch_size=200, minibatch_size=50, num_epochs=2)
    .callbacks(on_episode_end=log_compute)
    .debugging(seed=0, log_level="ERROR")
)
algo = metered(config.build_algo())
for _ in range(2):
    report = algo.train()["env_runners"]["compute"]
print(f"return {report['return_raw']:.1f}, {report['return_penalised']:.2f} after the penalty")

totals = get_meter("policy").totals
print(f"acting {totals['act']:,} FLOPs, learning {totals['learn']:,} FLOPs (matmul)")

# From the next episode on: 10 actions of 2·(4·32 + 32·32 + 32·2) = 2,432 FLOPs.
algo.env_runner.env.unwrapped.call("set_budget", 10 * 2_432)
(episode,) = algo.env_runner.sample(num_episodes=1, force_reset=True)
print(f"{len(episode)} steps within the budget")

print(as_sub_policy(algo, "ppo"))
algo.stop()
ray.shutdown()
