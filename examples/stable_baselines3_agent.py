"""Plug in somebody else's agent: meter a Stable-Baselines3 model in one line, then make sub-policies of two."""

import gymnasium as gym
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from budget_wrappers import RecordComputeStatistics, SubPolicyAction, get_meter
from budget_wrappers.integrations.sb3 import as_sub_policy, metered, unmeter


def train(width: int) -> SAC:
    """Return a SAC model that was trained for a moment, in a wrapped environment."""
    env = RecordComputeStatistics(gym.make("Pendulum-v1"))
    model = metered(SAC("MlpPolicy", env, policy_kwargs={"net_arch": [width, width]}, seed=0, device="cpu"))
    model.learn(200)
    return model


small = train(8)
totals = get_meter("policy").totals
print(f"acting {totals['act']:,} FLOPs, learning {totals['learn']:,} FLOPs (matmul)")

mean, spread = evaluate_policy(small, Monitor(gym.make("Pendulum-v1")), n_eval_episodes=2)
print(
    f"return {mean:.0f} ± {spread:.0f}; the meter counts evaluation, too: {get_meter('policy').totals['act']:,} FLOPs"
)
unmeter(small)  # nothing is left on the model

# Two models become the actions of a third, which is unmodified: it learns when the dear one is worth its FLOPs.
large = unmeter(train(64))
options = SubPolicyAction(
    gym.make("Pendulum-v1"), [as_sub_policy(small, "small"), as_sub_policy(large, "large")], hold=5, weight=0.01
)
# This DQN counts decisions, 5 steps each: what is meant in environment steps is divided by 5.
env = RecordComputeStatistics(options)
master = metered(DQN("MlpPolicy", env, learning_starts=20, target_update_interval=100, seed=0, device="cpu"))
master.learn(100)
print({name: f"{flops:,}" for name, flops in get_meter("policy").totals.by_name.items()})
