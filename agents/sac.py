"""Soft Actor-Critic (Haarnoja et al. 2018, the form with automatic temperature), readable alone.

Shapes: ``K`` sub-policies (1 in the textbook), ``M`` critics (2), ``B`` transitions, ``A`` action size. A part that is
given (an actor of several sub-policies, a critic of K heads) changes K or M; nothing else here does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import ActorCriticConfig, OffPolicyConfig, require
from agents.loop.acting import TorchForward, numpy_forward
from agents.loop.agent import OffPolicyAgent
from agents.loop.collect import Step
from agents.loop.method import ActorPass, Method
from agents.nets.networks import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    Critic,
    GaussianActor,
    Moments,
    PolicySample,
    squashed_gaussian,
    textbook_critic,
)
from agents.nets.noise import OrnsteinUhlenbeck
from agents.nets.optim import FusedAdam
from agents.nets.said import ask
from agents.nets.td import MovingAverage, entropy_regularised_target
from agents.replay.buffers import Batch


@dataclass(frozen=True)
class SACConfig(ActorCriticConfig):
    """Configuration of SAC. Defaults are Stable-Baselines3's.

    Attributes:
        tau: step of the target critics' moving average, in (0, 1].
        ent_coef: temperature α, or ``"auto"`` to learn it.
        ent_coef_init: where a learned temperature starts.
        target_entropy: entropy a learned temperature aims at, or ``"auto"`` for minus the action size.
        target_update_interval: updates between two moves of the target critics.
        correlated_noise: σ of Ornstein-Uhlenbeck noise on the actions while training, for environments that
            independent noise does not explore (MountainCarContinuous); 0 for none.
    """

    tau: float = 0.005
    ent_coef: float | Literal["auto"] = "auto"
    ent_coef_init: float = 1.0
    target_entropy: float | Literal["auto"] = "auto"
    target_update_interval: int = 1
    correlated_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.net_arch) >= 1, "net_arch", self.net_arch, "at least one hidden layer")
        require(0 < self.tau <= 1, "tau", self.tau, "a step in (0, 1]")
        require(self.ent_coef == "auto" or self.ent_coef >= 0, "ent_coef", self.ent_coef, "'auto' or 0 or more")
        require(self.ent_coef_init > 0, "ent_coef_init", self.ent_coef_init, "a temperature above 0")
        require(self.target_update_interval >= 1, "target_update_interval", self.target_update_interval, "at least 1")
        require(self.correlated_noise >= 0, "correlated_noise", self.correlated_noise, "0 or more")


class SAC(OffPolicyAgent):
    """Soft Actor-Critic.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods: see ``OffPolicyAgent``.
        actor: a function ``(observation size, action size, config) -> module`` whose forward returns mean and log
            standard deviation, each ``(K, B, A)``, or a record whose ``output`` ``(K, B, 2A)`` is both; by default
            ``GaussianActor`` (K = 1).
        critic: a function ``(observation size, action size, config) -> Critic``; by default twins of one head.
        settings: keys of ``SACConfig``.
    """

    config_class = SACConfig
    config: SACConfig
    says = "moments"

    def __init__(
        self,
        env: Any,
        *,
        meter: Any = None,
        methods: Sequence[Method] = (),
        actor: Callable[..., nn.Module] | None = None,
        critic: Callable[..., Critic] | None = None,
        **settings: Any,
    ) -> None:
        self._given = actor, critic
        super().__init__(env, meter=meter, methods=methods, **settings)
        self.numpy_forward = numpy_forward(self.policy, GaussianActor, self.meter)
        self._torch_forward = TorchForward(self.policy, self.device)

    def build(self) -> None:
        config, sizes = self.config, self.network_sizes
        actor_of = self.maker("actor", self._given[0], textbook_actor)
        critic_of = self.maker("critic", self._given[1], textbook_critic)
        self.policy = actor_of(*sizes, config).to(self.device)
        self.critic = critic_of(*sizes, config).to(self.device)
        self.target_critic = critic_of(*sizes, config).to(self.device).requires_grad_(False)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.critic_average = MovingAverage(self.critic, self.target_critic, config.tau)
        automatic = config.ent_coef == "auto"
        start = config.ent_coef_init if automatic else config.ent_coef
        self.log_ent_coef = nn.Parameter(torch.tensor(float(start), device=self.device).log(), requires_grad=automatic)
        self.target_entropy = -float(sizes[1]) if config.target_entropy == "auto" else float(config.target_entropy)
        self.actor_optimizer = FusedAdam(self.policy, lr=config.learning_rate, eps=config.adam_eps)
        self.critic_optimizer = FusedAdam(self.critic, lr=config.learning_rate, eps=config.adam_eps)
        self.temperature_optimizer = FusedAdam([self.log_ent_coef], lr=config.learning_rate)
        self.noise = OrnsteinUhlenbeck(sizes[1], config.correlated_noise, self.rng)

    @property
    def actor(self) -> nn.Module:
        return self.policy

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        temperature = nn.ParameterDict({"log_ent_coef": self.log_ent_coef})
        return {
            "actor": self.policy,
            "critic": self.critic,
            "target_critic": self.target_critic,
            "temperature": temperature,
        }

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        optimizers = {"actor": self.actor_optimizer, "critic": self.critic_optimizer}
        return optimizers | ({"temperature": self.temperature_optimizer} if self.log_ent_coef.requires_grad else {})

    @property
    def averages(self) -> Sequence[MovingAverage]:
        return (self.critic_average,)

    # ---- learning -----------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> dict[str, Tensor]:
        ent_coef = self.log_ent_coef.detach().exp()
        own = self.sample(batch.observation, updated=True)
        temperature = self._step_temperature(own.log_prob)
        critic_loss = self.improve_critics(batch, ent_coef)
        actor_loss = self.improve_actor(batch, own, ent_coef)
        if (self.num_updates + 1) % self.config.target_update_interval == 0:
            self.critic_average.update()
            self.target_moved()
        return {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "ent_coef": ent_coef,
            "entropy": -own.log_prob.detach().mean(),
            **temperature,
        }

    def improve_critics(self, batch: Batch, ent_coef: Tensor) -> Tensor:
        """Take one gradient step of the critics, or those of a method, and return their loss.

        It is ``½ Σ_m Σ_i mean_B (Q_{m,i}(s, a) − y_i)²`` with every head's own target ``y_i``.
        """
        target = self.critic_target(batch, ent_coef)
        return self.descend_critics(lambda: self.critic_total(self.critic, batch, target))

    def critic_loss(self, batch: Batch, ent_coef: Tensor) -> Tensor:
        """Return what ``improve_critics`` steps down."""
        return self.critic_total(self.critic, batch, self.critic_target(batch, ent_coef))

    @torch.no_grad()
    def critic_target(self, batch: Batch, ent_coef: Tensor) -> Tensor:
        """Return every head's target ``y_i``, ``(K, B)``."""
        following = self.sample(batch.next_observation).last(self.critic.heads)
        next_value = self.target_critic.smallest_of_own_actions(batch.next_observation, following.action)
        return entropy_regularised_target(batch, next_value, following.log_prob, ent_coef)

    def improve_actor(self, batch: Batch, own: PolicySample, ent_coef: Tensor) -> Tensor:
        """Take one gradient step of the policy, or those of a method, and return its loss."""
        loss = None
        if self.methods:
            self.begin_actor_update()
            loss = self.descend_apart(lambda: self.actor_losses(batch, self.sample(batch.observation, True), ent_coef))
        if loss is None:
            loss = self.actor_loss(batch, own, ent_coef)
            self.actor_optimizer.descend(loss)
        return loss

    def actor_loss(self, batch: Batch, own: PolicySample, ent_coef: Tensor) -> Tensor:
        """Return ``Σ_i mean_B [α·log π_i(a_i|s) − min_m Q_{m,i}(s, a_i)]``; no gradient reaches the critics."""
        return self.actor_losses(batch, own, ent_coef).sum()

    def actor_losses(self, batch: Batch, own: PolicySample, ent_coef: Tensor) -> Tensor:
        """Return the loss of each sub-policy ``(K,)``, the methods' terms included."""
        value = self.critic.smallest_of_own_actions(batch.observation, own.action)
        losses = (ent_coef * own.log_prob - value).mean(1)
        return self.taught(losses, lambda: ActorPass(batch, losses, own.moments, own.moments.said, lambda: value))

    def sample(self, observation: Tensor, updated: bool = False) -> PolicySample:
        """Return reparametrised actions ``(K, B, A)`` and log-densities ``(K, B)`` for ``(B, O)``.

        Args:
            observation: shape ``(B, O)``.
            updated: whether the loss that they are for updates the policy.
        """
        moments = self.moments(observation, updated)
        noise = torch.randn(moments.mean.shape, generator=self.generator, device=self.device)
        return PolicySample(*squashed_gaussian(moments.mean, moments.log_std, noise), moments)

    def moments(self, observation: Tensor, updated: bool = False) -> Moments:
        """Return mean and log standard deviation before the squash, each ``(K, B, A)``; see ``sample``."""
        return Moments.of(ask(self.policy, observation, updated))

    def _step_temperature(self, log_prob: Tensor) -> dict[str, Tensor]:
        """Step down ``−log α·(mean log π(a|s) + target entropy)``, one temperature for all sub-policies."""
        if not self.log_ent_coef.requires_grad:
            return {}
        slope = -(log_prob.detach().mean() + self.target_entropy)
        loss = self.log_ent_coef.detach() * slope
        self.temperature_optimizer.apply([slope])
        return {"temperature_loss": loss}

    # ---- acting -------------------------------------------------------------------------------------------------

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        mean, log_std = self._distribution(observation, deterministic)
        if deterministic:
            action = np.tanh(mean)
        else:
            noise = self.rng.standard_normal(mean.shape, dtype=np.float32)
            action = np.tanh(mean + np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)) * noise)
        return action if action.ndim == observation.ndim else action.mean(0)  # of several sub-policies at once

    def explore(self, observation: np.ndarray) -> np.ndarray:
        action = super().explore(observation)
        if not self.noise.sigma:
            return action
        return np.clip(action + self.noise(len(observation)), -1.0, 1.0)

    def store(self, step: Step) -> None:
        super().store(step)
        if self.noise.sigma:
            for row in np.flatnonzero(step.terminated | step.truncated):
                self.noise.reset(step.streams[row])

    def _reset(self, collector: Any) -> None:
        super()._reset(collector)
        self.noise.reset()

    def _distribution(self, observation: np.ndarray, deterministic: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and log standard deviation, each ``(n, A)``, of the sub-policy that acts, ``(K, n, A)`` of all.

        Args:
            observation: shape ``(n, O)``.
            deterministic: whether the mean will be taken.
        """
        if (said := self.acted(observation, deterministic)) is not None:
            mean, log_std = np.split(said, 2, axis=-1)
            return mean, log_std
        moments = Moments.of(self._torch_forward(observation))
        mean, log_std = moments.mean[-1].cpu().numpy(), moments.log_std[-1].cpu().numpy()
        return self.require_finite_output(mean), self.require_finite_output(log_std)


def textbook_actor(observation_size: int, action_size: int, config: OffPolicyConfig) -> GaussianActor:
    """Return the Gaussian actor that ``config`` describes."""
    return GaussianActor(observation_size, action_size, config.net_arch, config.activation)
