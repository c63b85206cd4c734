"""BEXA: SAC and TD3 whose policies leave early, through gates that a linear program teaches to keep a budget.

Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks". The textbook agents are given an actor
with K exits and critics with K heads; what is added here is wiring.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import OffPolicyConfig
from agents.methods.bexa_config import BexaSACConfig, BexaTD3Config
from agents.methods.exits import ExitActorCritic, exits_of
from agents.nets.networks import LOG_STD_MAX, LOG_STD_MIN, Critic, SquashedSample, squashed_gaussian
from agents.replay.buffers import Batch
from agents.sac import SAC
from agents.td3 import TD3
from budget_wrappers.modules.exits import EarlyExitNetwork


class ExitSample(NamedTuple):
    """``SquashedSample`` of every exit, and what the gates of the same forward pass say.

    Attributes:
        action: shape ``(K, B, A)``.
        log_prob: shape ``(K, B)``.
        mean: shape ``(K, B, A)``.
        log_std: shape ``(K, B, A)``.
        logits: of the gates, shape ``(B, K − 1)``.
    """

    action: Tensor
    log_prob: Tensor
    mean: Tensor
    log_std: Tensor
    logits: Tensor

    def last(self, count: int) -> SquashedSample:
        """See ``SquashedSample.last``."""
        return SquashedSample(self.action, self.log_prob).last(count)


class BexaSAC(ExitActorCritic, SAC):
    """SAC with early exits under a budget.

    Policy and temperature take one step each update, as SAC's do; the publication's take two every second one.

    Args:
        env: with a bounded ``Box`` action space.
        meter: see ``OffPolicyAgent``.
        settings: keys of ``BexaSACConfig``.

    Raises:
        ConfigError: see ``SAC``; exits that are no depths of the trunk, a budget below 0.
    """

    config_class = BexaSACConfig
    config: BexaSACConfig

    def __init__(self, env: Any, *, meter: Any = None, **settings: Any) -> None:
        super().__init__(env, meter=meter, actor=gaussian_exits, critic=critic_of_exits, **settings)

    def moments(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(observation).output.chunk(2, -1)

    def sample(self, observation: Tensor) -> ExitSample:
        """Return reparametrised actions of every exit and their log-densities, with the gates' logits."""
        output, logits = self.policy(observation)
        mean, log_std = output.chunk(2, -1)
        noise = torch.randn(mean.shape, generator=self.generator, device=self.device)
        return ExitSample(*squashed_gaussian(mean, log_std, noise), mean, log_std, logits)

    def improve_actor(self, batch: Batch, own: ExitSample, ent_coef: Tensor) -> Tensor:
        self.begin_actor_update()
        if self.config.scheme == "jointly":
            return super().improve_actor(batch, own, ent_coef)
        return self.descend_stepwise(lambda: self.exit_losses(batch, self.sample(batch.observation), ent_coef))

    def actor_loss(self, batch: Batch, own: ExitSample, ent_coef: Tensor) -> Tensor:
        """Return ``Σ_i mean_B [α·log π_i − min_m Q_{m,i}(s, a_i)] + λ_g·BCE(p_i, p*_i)``."""
        return self.exit_losses(batch, own, ent_coef).sum()

    def exit_losses(self, batch: Batch, own: ExitSample, ent_coef: Tensor) -> Tensor:
        """Return each exit's loss, its gate's included, ``(K,)``."""
        values = self.critic.smallest_of_own_actions(batch.observation, own.action)
        losses = (ent_coef * own.log_prob - values).mean(1)
        if self.config.exit_training == "imitate":
            losses = self.imitating(losses, gaussian_divergence(own.mean, own.log_std).mean(1))
        return self.with_gates(losses, own.logits, values, batch.observation)

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        action = super().act(observation, deterministic)
        return action if action.ndim == observation.ndim else action.mean(0)  # of an ensemble

    def _distribution(self, observation: np.ndarray, deterministic: bool) -> tuple[np.ndarray, np.ndarray]:
        mean, log_std = np.split(self.leave(observation, deterministic), 2, axis=-1)
        return mean, log_std

    def certain_action(self, output: np.ndarray) -> np.ndarray:
        return np.tanh(np.split(output, 2, axis=-1)[0])


class BexaTD3(ExitActorCritic, TD3):
    """TD3 with early exits under a budget.

    Args:
        env: with a bounded ``Box`` action space.
        meter: see ``OffPolicyAgent``.
        settings: keys of ``BexaTD3Config``.

    Raises:
        ConfigError: see ``TD3``; exits that are no depths of the trunk, a budget below 0.
    """

    config_class = BexaTD3Config
    config: BexaTD3Config

    def __init__(self, env: Any, *, meter: Any = None, **settings: Any) -> None:
        super().__init__(env, meter=meter, actor=deterministic_exits, critic=critic_of_exits, **settings)

    def propose(self, policy: nn.Module, observation: Tensor) -> Tensor:
        return torch.tanh(policy(observation).output[-self.critic.heads :])

    def improve_actor(self, batch: Batch) -> Tensor:
        self.begin_actor_update()
        if self.config.scheme == "jointly":
            return super().improve_actor(batch)
        return self.descend_stepwise(lambda: self.exit_losses(batch))

    def actor_loss(self, batch: Batch) -> Tensor:
        """Return ``Σ_i −mean_B Q_{1,i}(s, π_i(s)) + λ_g·BCE(p_i, p*_i)``."""
        return self.exit_losses(batch).sum()

    def exit_losses(self, batch: Batch) -> Tensor:
        """Return each exit's loss, its gate's included, ``(K,)``."""
        output, logits = self.policy(batch.observation)
        action = torch.tanh(output)
        value = self.critic.first_of_own_actions(batch.observation, action)
        losses = -value.mean(1)
        if self.config.exit_training == "imitate":
            losses = self.imitating(losses, (action[:-1] - action[-1].detach()).square().sum(2).mean(1))
        with torch.no_grad():
            values = self.critic.smallest_of_own_actions(batch.observation, action)
        return self.with_gates(losses, logits, values, batch.observation)

    def _mean(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        action = self.certain_action(self.leave(observation, deterministic))
        return action if action.ndim == observation.ndim else action.mean(0)  # of an ensemble

    def certain_action(self, output: np.ndarray) -> np.ndarray:
        return np.tanh(output)


def gaussian_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return ``KL(π_K ‖ π_i)`` of every exit but the last, ``(K − 1, B)``; no gradient reaches the last.

    Of the Gaussians before the squash, which a common bijection leaves as it is.

    Args:
        mean: shape ``(K, B, A)``.
        log_std: shape ``(K, B, A)``; bounded as in ``squashed_gaussian``.
    """
    log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    taught, model = (mean[:-1], log_std[:-1]), (mean[-1].detach(), log_std[-1].detach())
    ratio = torch.exp(2.0 * (model[1] - taught[1]))
    distance = ((model[0] - taught[0]) * torch.exp(-taught[1])).square()
    return (taught[1] - model[1] + 0.5 * (ratio + distance - 1.0)).sum(-1)


def gaussian_exits(observation_size: int, action_size: int, config: Any) -> EarlyExitNetwork:
    """Return an actor whose exits say means and log standard deviations."""
    return exits_of(observation_size, 2 * action_size, config)


def deterministic_exits(observation_size: int, action_size: int, config: Any) -> EarlyExitNetwork:
    """Return an actor whose exits say actions, before the squash."""
    return exits_of(observation_size, action_size, config)


def critic_of_exits(observation_size: int, action_size: int, config: OffPolicyConfig) -> Critic:
    """Return twins with a head for each exit, or with one for all."""
    return Critic(observation_size, action_size, config.net_arch, config.activation, heads=config.critic_heads)
