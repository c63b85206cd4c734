"""Deep Q-learning (Mnih et al. 2015) with double, dueling and prioritized as switches, readable alone.

Shapes: ``K`` heads (1 in the textbook; head i values acting with sub-policy i), ``B`` transitions, ``A`` actions.
Clocks are Stable-Baselines3's, so hyper-parameters tuned for it mean the same: the target network follows every
``target_update_interval`` environment steps, whatever the number of updates between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn
from torch.nn import functional as F

from agents.config import OffPolicyConfig, require
from agents.loop.acting import TorchForward, numpy_forward
from agents.loop.agent import OffPolicyAgent
from agents.loop.method import ActorPass, Method
from agents.nets.optim import FusedAdam
from agents.nets.q_networks import DuelingQNetwork, QNetwork, textbook_q_network
from agents.nets.said import ask, besides, output_of
from agents.nets.td import MovingAverage, td_target
from agents.replay.buffers import Batch, ReplayBuffer
from agents.replay.prioritized import PrioritizedReplay
from budget_wrappers.errors import ConfigError


@dataclass(frozen=True)
class DQNConfig(OffPolicyConfig):
    """Configuration of DQN. Defaults are Stable-Baselines3's.

    Attributes:
        tau: step of the target network's moving average, 1 for a copy.
        target_update_interval: environment steps between two moves of the target network.
        exploration_fraction: share of ``learn``'s steps over which ε falls.
        exploration_initial_eps: ε, the share of random actions, at the beginning.
        exploration_final_eps: ε at the end.
        max_grad_norm: bound of the gradient's Euclidean norm.
        loss: of the error e, ``"huber"``: ½e² below 1 and linear above, or ``"squared"``: e².
        double: the online network picks the next action, the target network values it (van Hasselt et al. 2016).
        dueling: ``Q = V + A − mean A`` with a stream each (Wang et al. 2016).
        prioritized: sample in proportion to a power of the last error (Schaul et al. 2016).
        priority_alpha: that power.
        priority_beta: exponent of the importance weights at the beginning; it grows to 1 over ``learn``.
    """

    learning_rate: float = 1e-4
    batch_size: int = 32
    train_freq: int = 4
    net_arch: tuple[int, ...] = (64, 64)
    tau: float = 1.0
    target_update_interval: int = 10_000
    exploration_fraction: float = 0.1
    exploration_initial_eps: float = 1.0
    exploration_final_eps: float = 0.05
    max_grad_norm: float = 10.0
    loss: Literal["huber", "squared"] = "huber"
    double: bool = False
    dueling: bool = False
    prioritized: bool = False
    priority_alpha: float = 0.6
    priority_beta: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.tau <= 1, "tau", self.tau, "a step in (0, 1]")
        require(self.target_update_interval >= 1, "target_update_interval", self.target_update_interval, "at least 1")
        require(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "a norm above 0")
        for name in ("exploration_fraction", "exploration_initial_eps", "exploration_final_eps"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share in [0, 1]")
        for name in ("priority_alpha", "priority_beta"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "an exponent in [0, 1]")
        if self.prioritized and self.hindsight:
            raise ConfigError(
                f"prioritized=True with hindsight={self.hindsight}: expected one of them, as a relabelled transition "
                "has no priority of its own; set prioritized=False or hindsight=0"
            )


class DQN(OffPolicyAgent):
    """Deep Q-learning.

    Args:
        env: with a ``Discrete`` action space.
        meter, methods: see ``OffPolicyAgent``.
        q_network: a function ``(observation size, actions, config) -> module`` whose forward returns values
            ``(K, B, A)``, or a record whose ``output`` they are; the last head acts. By default ``QNetwork`` or
            ``DuelingQNetwork`` (K = 1).
        settings: keys of ``DQNConfig``.

    Attributes:
        learner: what is asked for the values that losses are made of; a method may put several networks there, whose
            values ``(M, B, A)`` stand for those of heads.
    """

    config_class = DQNConfig
    config: DQNConfig
    discrete = True
    says = "values"

    def __init__(
        self,
        env: Any,
        *,
        meter: Any = None,
        methods: Sequence[Method] = (),
        q_network: Callable[..., nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        self._given = q_network
        super().__init__(env, meter=meter, methods=methods, **settings)
        self.numpy_forward = numpy_forward(self.q_network, QNetwork, self.meter)
        self._torch_forward = TorchForward(self.q_network, self.device)

    def build(self) -> None:
        config, sizes = self.config, self.network_sizes
        network_of = self.maker("actor", self._given, textbook_q_network)
        self.q_network = network_of(*sizes, config).to(self.device)
        self.target_network = network_of(*sizes, config).to(self.device).requires_grad_(False)
        self.target_network.load_state_dict(self.q_network.state_dict())
        self.learner = self.q_network
        self.average = MovingAverage(self.q_network, self.target_network, config.tau)
        self.optimizer = FusedAdam(self.q_network, lr=config.learning_rate, eps=config.adam_eps)

    def make_replay(self) -> ReplayBuffer:
        config = self.config
        if not config.prioritized:
            return super().make_replay()
        return PrioritizedReplay(
            config.buffer_size,
            self.observation_shape,
            (),
            alpha=config.priority_alpha,
            beta=config.priority_beta,
            discrete=True,
            gamma=config.gamma,
            n_step=config.n_step,
            reward_scale=config.reward_scale,
            device=config.device,
        )

    @property
    def actor(self) -> nn.Module:
        return self.q_network

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        return {"q_network": self.q_network, "target_network": self.target_network}

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"q_network": self.optimizer}

    @property
    def averages(self) -> Sequence[MovingAverage]:
        return (self.average,)

    # ---- learning -----------------------------------------------------------------------------------------------

    def after_step(self) -> None:
        config = self.config
        envs = self.env.num_envs if isinstance(self.env, VectorEnv) else 1
        if self.num_rounds % max(config.target_update_interval // envs, 1) == 0:
            self.target_moves()
            self.average.update()
            self.target_moved()
        if config.prioritized:
            progress = min(self.num_timesteps / self.total_timesteps, 1.0)
            self.replay.beta = config.priority_beta + progress * (1.0 - config.priority_beta)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        loss, error = self.improve(batch)
        self.replay.update_priorities(batch.index, error.detach().abs().mean(0))
        return {"loss": loss.detach()}

    def improve(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take one gradient step of the network, or those of a method, and return its loss and the errors."""
        apart = self._descend_apart(batch) if self.methods else None
        if apart is not None:
            return apart
        loss, error = self.loss(batch)
        self.optimizer.descend(loss, self.config.max_grad_norm)
        return loss, error

    def _descend_apart(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Let a method take the gradient steps; return its loss and the errors of the first pass, ``None`` without."""
        self.begin_actor_update()
        errors: list[Tensor] = []
        target = self.target(batch) if self.one_target else None

        def losses() -> Tensor:
            found, error = self.network_losses(batch, target)
            errors.append(error)
            return found

        loss = self.descend_apart(losses, self.config.max_grad_norm)
        if loss is None:
            return None
        return loss, errors[0] if errors else self.loss(batch)[1]  # a method may have asked for no loss

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ``Σ_i mean_B w·loss(Q_i(s, a) − y_i)`` and the errors ``Q_i(s, a) − y_i``, ``(K, B)``."""
        losses, error = self.network_losses(batch)
        return losses.sum(), error

    def network_losses(self, batch: Batch, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss of each head ``(K,)``, the methods' terms included, and the errors ``(K, B)``.

        Args:
            batch: of the update.
            target: y, ``(K, B)``; ``None`` has it computed.
        """
        said = ask(self.learner, batch.observation, updated=True)
        values = output_of(said)
        losses, error = self.losses(values, batch, target)
        if not self.methods:
            return losses, error
        made_of = ActorPass(batch, losses, values, besides(said), lambda: values.detach().amax(2), error=error)
        return self.taught(losses, lambda: made_of), made_of.error

    def losses(self, values: Tensor, batch: Batch, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return each head's loss ``(K,)`` and error ``(K, B)`` for values ``(K, B, A)`` of the batch's states."""
        error = chosen(values, batch.action) - (self.target(batch) if target is None else target)
        if self.config.loss == "squared":
            return (batch.weight * error.square()).mean(1), error
        return weighted_huber(error, batch.weight), error

    def values_of(self, network: nn.Module, observation: Tensor) -> Tensor:
        """Return the values of ``network``, ``(K, B, A)``."""
        return output_of(ask(network, observation))

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """Return ``y_i = R + γⁿ(1 − terminated)·Q̄_i(s', a')``, ``(K, B)``.

        ``a'`` maximises ``Q̄_i(s', ·)``, or the online ``Q_i(s', ·)`` where ``double``.
        """
        next_values = self.values_of(self.target_network, batch.next_observation)
        if self.config.double:
            picked = self.values_of(self.q_network, batch.next_observation).argmax(2, keepdim=True)
            return td_target(batch, next_values.gather(2, picked).squeeze(2))
        return td_target(batch, next_values.amax(2))

    # ---- acting -------------------------------------------------------------------------------------------------

    @property
    def exploration_rate(self) -> float:
        """ε: falls linearly over the first ``exploration_fraction`` of the steps that ``learn`` was asked for."""
        config = self.config
        steps = config.exploration_fraction * self.total_timesteps
        share = min(self.num_timesteps / steps, 1.0) if steps > 0 else 1.0
        return config.exploration_initial_eps + share * (config.exploration_final_eps - config.exploration_initial_eps)

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        if deterministic:
            return self.values(observation, deterministic).argmax(1)
        greedy = self.chosen = self.greedy_rows(len(observation))
        action = self.random_action(len(observation))
        if self.meter.row_ledger is not None:  # a vector wrapper asks what each row costs: all of them run
            return np.where(greedy, self.values(observation, deterministic).argmax(1), action)
        if greedy.any():
            action[greedy] = self.values(observation[greedy], deterministic).argmax(1)
        return action

    def greedy_rows(self, count: int) -> np.ndarray:
        """Return which of ``count`` rows act greedily this time, ``(count,)``: each with probability 1 − ε."""
        return self.rng.random(count) >= self.exploration_rate

    def values(self, observation: np.ndarray, deterministic: bool = True) -> np.ndarray:
        """Return the values ``(n, A)`` that the acting head gives to ``observation`` ``(n, O)``; metered.

        Args:
            observation: shape ``(n, O)``.
            deterministic: whether whatever else is drawn is to be as certain as it can be.
        """
        if (said := self.acted(observation, deterministic)) is None:
            return self.require_finite_output(output_of(self._torch_forward(observation))[-1].cpu().numpy())
        if said.ndim > observation.ndim:  # of several sub-policies at once
            return said.mean(0)
        return said[:, -int(self.action_space.n) :]


def weighted_huber(error: Tensor, weight: Tensor) -> Tensor:
    """Return ``mean_B w·huber(error_i)``, ``(K,)``, quadratic below 1 and linear above, for ``error`` ``(K, B)``."""
    return (weight * F.huber_loss(error, torch.zeros_like(error), reduction="none")).mean(1)


def chosen(values: Tensor, action: Tensor) -> Tensor:
    """Return ``values[k, b, action[b]]``, shape ``(K, B)``, for ``values`` ``(K, B, A)``."""
    return values.gather(2, action.expand(len(values), -1).unsqueeze(2)).squeeze(2)


__all__ = ["DQN", "DQNConfig", "DuelingQNetwork", "QNetwork", "chosen", "textbook_q_network", "weighted_huber"]
