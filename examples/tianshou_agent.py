"""Plug in somebody else's agent: meter Tianshou's SAC in one line, then let its DQN choose between two policies."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm import DQN, SAC
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.sac import SACPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic

from budget_wrappers import RecordComputeStatistics, SubPolicyAction, get_meter
from budget_wrappers.integrations.tianshou import as_sub_policy, metered, unmeter
from budget_wrappers.policies import FunctionPolicy

ADAM = AdamOptimizerFactory(lr=1e-3)
torch.manual_seed(0)
np.random.seed(0)  # noqa: NPY002 - Tianshou draws from it


def train(algorithm: Any, env: gym.Env, steps: int) -> Collector:
    """Train ``algorithm`` for some steps."""
    collector = Collector(
        algorithm, DummyVectorEnv([lambda: env]), VectorReplayBuffer(1_000, 1), exploration_noise=True
    )
    collector.reset()
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=steps,
            collection_step_num_env_steps=10,
            verbose=False,
            show_progress=False,
        )
    )
    return collector


env = RecordComputeStatistics(gym.make("Pendulum-v1", max_episode_steps=100))
actor = ContinuousActorProbabilistic(
    preprocess_net=Net(state_shape=3, hidden_sizes=(64, 64)), action_shape=1, unbounded=True, conditioned_sigma=True
)
critic = ContinuousCritic(preprocess_net=Net(state_shape=3, action_shape=1, hidden_sizes=(64, 64), concat=True))
policy = SACPolicy(actor=actor, action_space=env.action_space, observation_space=env.observation_space)
sac = metered(SAC(policy=policy, policy_optim=ADAM, critic=critic, critic_optim=ADAM))
buffer = train(sac, env, 200).buffer
totals = get_meter("policy").totals
print(f"acting {totals['act']:,} FLOPs, learning {totals['learn']:,} FLOPs (matmul)")
print(f"returns {buffer.info.compute.return_raw[buffer.done].round()}")
unmeter(sac)  # nothing is left on the algorithm

# Two policies become the actions of a third algorithm, which is unmodified: it learns when the dear one is worth it.
rest = FunctionPolicy(lambda observation: np.zeros(1, np.float32), flops=100, name="rest")
options = RecordComputeStatistics(
    SubPolicyAction(gym.make("Pendulum-v1"), [rest, as_sub_policy(sac, "sac")], hold=5, weight=0.001)
)
chooser = DiscreteQLearningPolicy(
    model=Net(state_shape=3, action_shape=2, hidden_sizes=(32, 32)),
    action_space=options.action_space,
    eps_training=0.3,  # no random start: Tianshou would draw from Pendulum's own actions
)
train(metered(DQN(policy=chooser, optim=ADAM, target_update_freq=50)), options, 100)
print({name: f"{flops:,}" for name, flops in get_meter("policy").totals.by_name.items()})
