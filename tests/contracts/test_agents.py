"""Every agent keeps the contract of agents."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from agents import CQL, DQN, GAIL, SAC, TD3, DiscreteCQL
from agents.behaviour_cloning import BehaviourCloning
from agents.loop.agent import OffPolicyAgent
from agents.loop.offline import FixedReplay
from agents.replay.buffers import Batch
from tests.agents.data import random_transitions
from tests.contracts.agent import AgentContract, OnlineContract

COMMON = {
    "learning_rate": 1e-2,
    "adam_eps": 1e-2,
    "buffer_size": 50,
    "learning_starts": 2,
    "batch_size": 4,
    "gamma": 0.5,
    "train_freq": 3,
    "gradient_steps": -1,
    "reward_scale": 0.5,
    "n_step": 3,
    "net_arch": (4,),
    "activation": "tanh",
    "seed": 11,
    "device": "cpu",
}
# Hindsight needs goals: tests/agents/test_hindsight.py runs it.
NO_GOALS = {"hindsight": 0}
CRITIC_KEYS = {"critic_net_arch": (6, 5)}
SAC_KEYS = {
    **CRITIC_KEYS,
    "tau": 0.1,
    "ent_coef": 0.2,
    "ent_coef_init": 0.5,
    "target_entropy": -1.0,
    "target_update_interval": 2,
    "correlated_noise": 0.5,
}
DQN_KEYS = {
    "tau": 0.1,
    "target_update_interval": 3,
    "exploration_fraction": 0.5,
    "exploration_initial_eps": 0.5,
    "exploration_final_eps": 0.2,
    "max_grad_norm": 0.1,
    "loss": "squared",
    "double": True,
    "dueling": True,
    "prioritized": True,
    "priority_alpha": {"prioritized": True, "priority_alpha": 0.3},
    "priority_beta": {"prioritized": True, "priority_beta": 0.9},
}


class OfflineContract(AgentContract):
    """Agents that learn from data get random ones."""

    def make(self, env: Any = None, **settings: Any) -> OffPolicyAgent:
        agent = super().make(env, **settings)
        config = agent.config
        agent.replay = FixedReplay(
            random_transitions(agent, 60), discrete=agent.discrete, gamma=config.gamma, n_step=config.n_step
        )
        return agent

    def test_no_environment_is_stepped(self) -> None:
        agent = self.make()
        agent.learn(5)
        assert agent.env.episode == 0
        assert agent.num_updates == 5


class TestSAC(OnlineContract):
    agent_class = SAC
    flips: ClassVar = {**COMMON, **NO_GOALS, **SAC_KEYS}

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        one = torch.ones(())
        return (
            lambda batch: agent.critic_loss(batch, one),
            lambda batch: agent.actor_loss(batch, agent.sample(batch.observation), one),
        )

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return torch.tanh(agent.policy(observation)[0][0]).numpy()


class TestGAIL(TestSAC):
    agent_class = GAIL
    settings: ClassVar = {**AgentContract.settings, "discriminator_net_arch": (8,)}
    flips: ClassVar = {
        **COMMON,
        **NO_GOALS,
        **SAC_KEYS,
        "n_step": 1,  # the only one that it takes
        "discriminator_net_arch": (4, 4),
        "discriminator_learning_rate": 1e-2,
        "discriminator_updates": 2,
        "gradient_penalty": 0.0,
        "reward_form": "log D - log(1-D)",
    }

    def make(self, env: Any = None, **settings: Any) -> OffPolicyAgent:
        agent = super().make(env, **settings)
        agent.demonstrations = FixedReplay(random_transitions(agent, 60))
        return agent

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return *super().losses(agent), lambda batch: agent.discriminator_losses(batch, batch), agent.reward_of


class TestTD3(OnlineContract):
    agent_class = TD3
    flips: ClassVar = {
        **COMMON,
        **NO_GOALS,
        **CRITIC_KEYS,
        "tau": 0.1,
        "policy_delay": 1,
        "exploration_noise": 0.5,
        "target_policy_noise": 0.0,
        "target_noise_clip": 0.1,
    }

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return agent.critic_loss, agent.actor_loss

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return agent.policy(observation)[0].numpy()


class TestDQN(OnlineContract):
    agent_class = DQN
    discrete = True
    flips: ClassVar = {**COMMON, **NO_GOALS, **DQN_KEYS}

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return (agent.loss,)

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return agent.q_network(observation)[0].argmax(1).numpy()


class TestCQL(OfflineContract):
    agent_class = CQL
    settings: ClassVar = {**AgentContract.settings, "action_samples": 2}
    flips: ClassVar = {
        **COMMON,
        **NO_GOALS,
        **SAC_KEYS,
        "actor_learning_rate": 1e-2,
        "cql_alpha": "auto",
        "cql_alpha_init": {"cql_alpha": "auto", "cql_alpha_init": 3.0},
        "cql_target_gap": {"cql_alpha": "auto", "cql_target_gap": 0.5},
        "action_samples": 1,
        "backup_entropy": True,
        "imitation_steps": 2,
    }

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        one = torch.ones(())
        return (
            lambda batch: agent.critic_losses(batch, one),
            lambda batch: agent.conservative_loss(torch.ones(2, 1)),
        )

    torch_actions = TestSAC.torch_actions


class TestDiscreteCQL(OfflineContract):
    agent_class = DiscreteCQL
    discrete = True
    flips: ClassVar = {**COMMON, **NO_GOALS, **DQN_KEYS, "cql_alpha": 0.1} | {
        "prioritized": False,
        "priority_alpha": 0.3,
        "priority_beta": 0.9,
    }

    losses = TestDQN.losses
    torch_actions = TestDQN.torch_actions


class TestBehaviourCloning(OfflineContract):
    agent_class = BehaviourCloning
    flips: ClassVar = {**COMMON, **NO_GOALS}

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return (agent.loss,)

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return torch.tanh(agent.net(observation)).numpy()


class TestDiscreteBehaviourCloning(TestBehaviourCloning):
    discrete = True

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return agent.net(observation).argmax(1).numpy()
