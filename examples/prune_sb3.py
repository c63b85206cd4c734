"""Prune the weights of unmodified Stable-Baselines3 models while they train: 90 % of what acts becomes 0."""

import gymnasium as gym
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from budget_wrappers.integrations.sb3 import flops_per_action
from budget_wrappers.integrations.sb3_pruner import PruneWeights

SETTINGS = {"seed": 0, "device": "cpu"}


def train(model: BaseAlgorithm, steps: int, network: nn.Module) -> None:
    """Train a model, prune the weights of the network that acts on the way, and print how many are left."""
    pruning = PruneWeights(final=0.9, every=50)
    model.learn(steps, callback=pruning)
    pruner = pruning.pruner_of("actor")
    nonzero = sum(int(layer.weight.count_nonzero()) for layer in network.modules() if isinstance(layer, nn.Linear))
    print(
        f"{type(model).__name__}: {pruner.sparsity:.1%} of the weights are 0, {pruner.effective_sparsity:.1%} lie on "
        f"no path; {2 * nonzero:,} of {flops_per_action(model):,} FLOPs of an action are of nonzero weights (matmul)"
    )
    # Dense kernels run all FLOPs. Zeros save space in a compressed file, and time where a kernel skips them.


small = {"net_arch": [64, 64]}
sac = SAC("MlpPolicy", gym.make("Pendulum-v1"), batch_size=64, train_freq=4, policy_kwargs=small, **SETTINGS)
train(sac, 2_000, sac.actor)
sac.save("sparse_sac")  # an ordinary zip of Stable-Baselines3, with zeros

dqn = DQN("MlpPolicy", gym.make("CartPole-v1"), learning_starts=500, target_update_interval=250, **SETTINGS)
train(dqn, 3_000, dqn.q_net)
