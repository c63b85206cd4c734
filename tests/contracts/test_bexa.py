"""Agents with early exits keep the contract of agents."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from agents import BexaCQL, BexaDiscreteCQL, BexaDQN, BexaSAC, BexaTD3
from agents.replay.buffers import Batch
from budget_wrappers.wrappers import BudgetAwareObservation

# The module and not its classes, which would be collected here a second time.
from tests.contracts import test_agents as plain
from tests.contracts.agent import AgentContract, Countdown, OnlineContract

EXIT_KEYS = {
    "exit_after": (0, 2),
    "net_arch": (4, 4),
    "budget": 0.1,
    "budget_from_observation": True,
    "budget_feedback": 0.01,
    "gate_training": "batch_budget",
    "gate_loss": "mixture",
    "gate_loss_scale": 0.0,
    "gate_interval": 2,
    "gate_temperature": {"gate_training": "softmax", "gate_temperature": 0.3},
    "gate_fraction": {"gate_training": "fraction", "gate_fraction": 0.5},
    "gate": "sample",
    "acting": "ensemble",
    "exit_training": "imitate",
    "imitation_scale": {"exit_training": "imitate", "imitation_scale": 1.0},
    "scheme": "stepwise",
}
ACTOR_KEYS = {**EXIT_KEYS, "critic_learning_rate": 1e-3}
ONE_STREAM = {"dueling": False}
GIVEN = {"budget_from_observation": False, "budget_feedback": 0.0}  # data hold no budget, and nothing acts


class Exits:
    """Gates open from a probability of ½ on, or two predictions of one observation would differ."""

    settings: ClassVar = {**AgentContract.settings, "gate": "threshold"}

    def make(self, env: Any = None, **settings: Any) -> Any:
        if settings.get("budget_from_observation"):
            env = BudgetAwareObservation(env or Countdown(discrete=self.discrete), "budget", draw=(0.0, 1.0))
        return super().make(env, **settings)

    def outputs(self, agent: Any, observation: Tensor) -> Tensor:
        """Return what the exits say that rows leave at, ``(n, outputs)``."""
        output, logits = agent.actor(observation)
        opened = torch.cat([logits >= 0, torch.ones(len(observation), 1, dtype=torch.bool)], 1)
        return output[opened.float().argmax(1), torch.arange(len(observation))]

    def test_predict_charges_the_meter(self) -> None:
        agent = self.make()
        observation = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
        agent.predict(observation)
        with torch.no_grad():
            logits = agent.actor(torch.from_numpy(observation)).logits
        opened = np.concatenate([logits.numpy() >= 0, np.ones((40, 1), bool)], 1).argmax(1)
        assert agent.meter.totals["act"] == sum(agent.actor.flops[k] for k in opened) > 0
        assert agent.flops_per_action == agent.actor.flops[-1]


class TestBexaSAC(Exits, OnlineContract):
    agent_class = BexaSAC
    flips: ClassVar = {**plain.TestSAC.flips, **ACTOR_KEYS}

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return plain.TestSAC.losses(self, agent)

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return torch.tanh(self.outputs(agent, observation).chunk(2, -1)[0]).numpy()


class TestBexaTD3(Exits, OnlineContract):
    agent_class = BexaTD3
    flips: ClassVar = {**plain.TestTD3.flips, **ACTOR_KEYS}

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return agent.critic_loss, agent.actor_loss

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return torch.tanh(self.outputs(agent, observation)).numpy()


class TestBexaDQN(Exits, OnlineContract):
    agent_class = BexaDQN
    discrete = True
    flips: ClassVar = {**plain.TestDQN.flips, **EXIT_KEYS, **ONE_STREAM}

    losses = plain.TestDQN.losses

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return self.outputs(agent, observation).argmax(1).numpy()


class TestBexaCQL(Exits, plain.OfflineContract):
    agent_class = BexaCQL
    settings: ClassVar = {**Exits.settings, "action_samples": 2}
    flips: ClassVar = {**plain.TestCQL.flips, **ACTOR_KEYS, **GIVEN}

    losses = plain.TestCQL.losses
    torch_actions = TestBexaSAC.torch_actions


class TestBexaDiscreteCQL(Exits, plain.OfflineContract):
    agent_class = BexaDiscreteCQL
    discrete = True
    flips: ClassVar = {**plain.TestDiscreteCQL.flips, **EXIT_KEYS, **ONE_STREAM, **GIVEN}

    losses = plain.TestDQN.losses
    torch_actions = TestBexaDQN.torch_actions
