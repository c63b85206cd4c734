"""Agents with early exits keep the contract of agents."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from agents import BexaSAC, BexaTD3
from agents.common.buffers import Batch
from budget_wrappers.wrappers import BudgetAwareObservation
from tests.contracts.agent import AgentContract, Countdown, OnlineContract
from tests.contracts.test_agents import TestSAC, TestTD3

EXIT_KEYS = {
    "exit_after": (0, 2),
    "net_arch": (4, 4),
    "budget": 0.1,
    "budget_from_observation": True,
    "gate_training": "batch_budget",
    "gate_loss": "mixture",
    "gate_loss_scale": 0.0,
    "gate_interval": 2,
    "gate_temperature": {"gate_training": "softmax", "gate_temperature": 0.3},
    "gate": "sample",
    "acting": "ensemble",
    "exit_training": "imitate",
    "imitation_scale": {"exit_training": "imitate", "imitation_scale": 1.0},
    "scheme": "stepwise",
    "critic_learning_rate": 1e-3,
}


class ExitContract(OnlineContract):
    """Gates open from a probability of ½ on, or two predictions of one observation would differ."""

    settings: ClassVar = {**AgentContract.settings, "gate": "threshold"}

    def make(self, env: Any = None, **settings: Any) -> Any:
        if settings.get("budget_from_observation"):
            env = BudgetAwareObservation(env or Countdown(), "budget", draw=(0.0, 1.0))
        return super().make(env, **settings)

    def outputs(self, agent: Any, observation: Tensor) -> Tensor:
        """Return what the exits say that rows leave at, ``(n, outputs)``."""
        output, logits = agent.policy(observation)
        opened = torch.cat([logits >= 0, torch.ones(len(observation), 1, dtype=torch.bool)], 1)
        return output[opened.float().argmax(1), torch.arange(len(observation))]

    def test_predict_charges_the_meter(self) -> None:
        agent = self.make()
        observation = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
        agent.predict(observation)
        with torch.no_grad():
            logits = agent.policy(torch.from_numpy(observation)).logits
        opened = np.concatenate([logits.numpy() >= 0, np.ones((40, 1), bool)], 1).argmax(1)
        assert agent.meter.totals["act"] == sum(agent.policy.flops[k] for k in opened) > 0
        assert agent.flops_per_action == agent.policy.flops[-1]


class TestBexaSAC(ExitContract):
    agent_class = BexaSAC
    flips: ClassVar = {**TestSAC.flips, **EXIT_KEYS}

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return TestSAC.losses(self, agent)

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return torch.tanh(self.outputs(agent, observation).chunk(2, -1)[0]).numpy()


class TestBexaTD3(ExitContract):
    agent_class = BexaTD3
    flips: ClassVar = {**TestTD3.flips, **EXIT_KEYS}

    def losses(self, agent: Any) -> Iterable[Callable[[Batch], Any]]:
        return agent.critic_loss, agent.actor_loss

    def torch_actions(self, agent: Any, observation: Tensor) -> np.ndarray:
        return torch.tanh(self.outputs(agent, observation)).numpy()
