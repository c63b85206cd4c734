"""Learn offline when a dear controller is worth its FLOPs: record choices, penalise them, train a discrete CQL."""

import d3rlpy
import gymnasium as gym
import numpy as np
from d3rlpy.algos import DiscreteCQLConfig
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.metrics import EnvironmentEvaluator
from d3rlpy.models import VectorEncoderFactory

from budget_wrappers import RecordComputeStatistics, SubPolicyAction, get_meter
from budget_wrappers.integrations.d3rlpy import metered, record_episodes
from budget_wrappers.policies import FunctionPolicy

d3rlpy.seed(0)
rng = np.random.default_rng(0)

# Both are rules here; any agent becomes a sub-policy by as_sub_policy.
cheap = FunctionPolicy(lambda obs: int(obs[2] > 0), flops=10, name="cheap")
dear = FunctionPolicy(lambda obs: int(obs[2] + 0.5 * obs[3] > 0), flops=1_000, name="dear")
env = RecordComputeStatistics(SubPolicyAction(gym.make("CartPole-v1", max_episode_steps=200), [cheap, dear], hold=2))

# d3rlpy keeps no infos, so the cost of each choice is recorded beside its data, once for every penalty to be tried.
episodes = record_episodes(env, lambda observation: rng.integers(2), episodes=20)
data = episodes.dataset(weight=2e-4)
print(f"{len(episodes.costs)} choices, {episodes.costs.mean():.0f} FLOPs each")

algo = DiscreteCQLConfig(batch_size=32, learning_rate=1e-3, encoder_factory=VectorEncoderFactory([32])).create()
algo.build_with_dataset(data)
metered(algo)
algo.fit(data, n_steps=300, n_steps_per_epoch=300, show_progress=False, logger_adapter=NoopAdapterFactory())
print(f"learning {get_meter('policy').totals['learn']:,} FLOPs (matmul)")

get_meter("policy").reset_totals()
print(f"return {EnvironmentEvaluator(env, n_trials=3)(algo, data):.0f}")
print({name: f"{flops:,}" for name, flops in get_meter("policy").totals.by_name.items()})
