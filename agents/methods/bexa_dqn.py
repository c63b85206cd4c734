"""BEXA-DQN: exit i of the network says ``Q_i(s, ·)``, is worth ``max_a Q_i(s, a)`` and learns from its own target.

The nearest published relative is RAPID-RL, whose rule is ``gate_training="fraction"``.
"""

from typing import Any

import numpy as np
from torch import Tensor, nn

from agents.dqn import DQN
from agents.methods.bexa_config import BexaDQNConfig
from agents.methods.exits import ExitAgent, exits_of
from agents.replay.buffers import Batch
from budget_wrappers.modules.exits import EarlyExitNetwork


class ExitValues(ExitAgent):
    """What DQN and discrete CQL with exits share; comes before the agent among the bases."""

    actor_name = "q_network"

    def improve(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take one gradient step of all exits, or one for each; return the loss and the errors."""
        self.begin_actor_update()
        if self.config.scheme == "jointly":
            return super().improve(batch)
        errors = []

        def losses_of() -> Tensor:
            losses, error = self.exit_losses(batch)
            errors.append(error)
            return losses

        return self.descend_stepwise(losses_of, self.config.max_grad_norm), errors[0]

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the exits' losses, their gates' included, as one number, and the errors ``(K, B)``."""
        losses, error = self.exit_losses(batch)
        return losses.sum(), error

    def exit_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return each exit's loss, its gate's included, ``(K,)``, and the errors ``(K, B)``."""
        values, logits = self.q_network(batch.observation)
        losses, error = self.losses(values, batch)
        worth = values.detach().amax(2)
        if self.config.exit_training == "imitate":
            losses = self.imitating(losses, (values[:-1] - values[-1].detach()).square().sum(2).mean(1))
            # What the last exit, which alone learns, says of each exit's choice: one that copies badly wins nothing.
            worth = values[-1].detach().gather(1, values.detach().argmax(2).t()).t()
            error = error[-1:]
        return self.with_gates(losses, logits, worth, batch.observation), error

    def greedy_rows(self, count: int) -> np.ndarray:
        """Return which of ``count`` rows act greedily this time, ``(count,)``: only they ask gates."""
        self._gated = super().greedy_rows(count)
        return self._gated

    def values_of(self, network: nn.Module, observation: Tensor) -> Tensor:
        """Return the values of every exit, ``(K, B, A)``."""
        return network(observation).output

    def values(self, observation: np.ndarray, deterministic: bool = True) -> np.ndarray:
        """Return the values ``(n, A)`` of the exits that the rows of ``observation`` leave at; metered."""
        values = self.leave(observation, deterministic)
        return values if values.ndim == observation.ndim else values.mean(0)  # of an ensemble

    def certain_action(self, output: np.ndarray) -> np.ndarray:
        return output.argmax(1)


class BexaDQN(ExitValues, DQN):
    """DQN with early exits under a budget.

    Args:
        env: with a ``Discrete`` action space.
        meter: see ``OffPolicyAgent``.
        settings: keys of ``BexaDQNConfig``.

    Raises:
        ConfigError: see ``DQN``; exits that are no depths of the trunk, a budget below 0, ``dueling``.
    """

    config_class = BexaDQNConfig
    config: BexaDQNConfig

    def __init__(self, env: Any, *, meter: Any = None, **settings: Any) -> None:
        super().__init__(env, meter=meter, q_network=value_exits, **settings)


def value_exits(observation_size: int, actions: int, config: Any) -> EarlyExitNetwork:
    """Return a network whose exits say the values of all actions."""
    return exits_of(observation_size, actions, config)
