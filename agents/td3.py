"""Twin Delayed DDPG (Fujimoto et al. 2018), readable alone.

Shapes: ``K`` sub-policies (1 in the textbook), ``M`` critics (2), ``B`` transitions, ``A`` action size.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import ActorCriticConfig, OffPolicyConfig, require
from agents.loop.acting import TorchForward, numpy_forward
from agents.loop.agent import OffPolicyAgent
from agents.loop.method import ActorPass, Method
from agents.nets.networks import Critic, DeterministicActor, textbook_critic
from agents.nets.optim import FusedAdam
from agents.nets.said import ask, besides, output_of
from agents.nets.td import MovingAverage, td_target
from agents.replay.buffers import Batch


@dataclass(frozen=True)
class TD3Config(ActorCriticConfig):
    """Configuration of TD3. Learning rate and starts are Stable-Baselines3's, the networks are the authors' 2×256.

    Attributes:
        tau: step of the targets' moving average, in (0, 1].
        policy_delay: critic updates per actor update.
        exploration_noise: standard deviation of the Gaussian noise on actions in [-1, 1] while training.
        target_policy_noise: standard deviation of the noise on target actions.
        target_noise_clip: bound of that noise.
    """

    learning_rate: float = 1e-3
    tau: float = 0.005
    policy_delay: int = 2
    exploration_noise: float = 0.1
    target_policy_noise: float = 0.2
    target_noise_clip: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.net_arch) >= 1, "net_arch", self.net_arch, "at least one hidden layer")
        require(0 < self.tau <= 1, "tau", self.tau, "a step in (0, 1]")
        require(self.policy_delay >= 1, "policy_delay", self.policy_delay, "at least 1 update")
        for name in ("exploration_noise", "target_policy_noise", "target_noise_clip"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


class TD3(OffPolicyAgent):
    """Twin Delayed DDPG.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods: see ``OffPolicyAgent``.
        actor: a function ``(observation size, action size, config) -> module`` whose forward returns actions
            ``(K, B, A)``, or a record whose ``output`` is these before the squash; by default ``DeterministicActor``
            (K = 1).
        critic: a function ``(observation size, action size, config) -> Critic``; by default twins of one head.
        settings: keys of ``TD3Config``.
    """

    config_class = TD3Config
    config: TD3Config
    says = "actions"

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
        self.numpy_forward = numpy_forward(self.policy, DeterministicActor, self.meter)
        self._torch_forward = TorchForward(self.policy, self.device)

    def build(self) -> None:
        config, sizes = self.config, self.network_sizes
        actor_of = self.maker("actor", self._given[0], textbook_actor)
        critic_of = self.maker("critic", self._given[1], textbook_critic)
        self.policy = actor_of(*sizes, config).to(self.device)
        self.target_policy = actor_of(*sizes, config).to(self.device).requires_grad_(False)
        self.critic = critic_of(*sizes, config).to(self.device)
        self.target_critic = critic_of(*sizes, config).to(self.device).requires_grad_(False)
        self.target_policy.load_state_dict(self.policy.state_dict())
        self.actor_average = MovingAverage(self.policy, self.target_policy, config.tau)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.critic_average = MovingAverage(self.critic, self.target_critic, config.tau)
        self.actor_optimizer = FusedAdam(self.policy, lr=config.learning_rate, eps=config.adam_eps)
        self.critic_optimizer = FusedAdam(self.critic, lr=config.learning_rate, eps=config.adam_eps)

    @property
    def actor(self) -> nn.Module:
        return self.policy

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        return {
            "actor": self.policy,
            "target_actor": self.target_policy,
            "critic": self.critic,
            "target_critic": self.target_critic,
        }

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer}

    @property
    def averages(self) -> Sequence[MovingAverage]:
        return self.critic_average, self.actor_average

    # ---- learning -----------------------------------------------------------------------------------------------

    def update_kind(self) -> str:
        return "critic and actor" if self._actor_is_due() else "critic"

    def update(self, batch: Batch) -> dict[str, Tensor]:
        critic_loss = self.improve_critics(batch)
        metrics = {"critic_loss": critic_loss.detach()}
        if self._actor_is_due():
            metrics["actor_loss"] = self.improve_actor(batch).detach()
            self.critic_average.update()
            self.actor_average.update()
            self.target_moved()
        return metrics

    def improve_critics(self, batch: Batch) -> Tensor:
        """Take one gradient step of the critics, or those of a method, and return their loss.

        It is ``½ Σ_m Σ_i mean_B (Q_{m,i}(s, a) − y_i)²``.
        """
        target = self.critic_target(batch)
        return self.descend_critics(lambda: self.critic_total(self.critic, batch, target))

    def critic_loss(self, batch: Batch) -> Tensor:
        """Return what ``improve_critics`` steps down."""
        return self.critic_total(self.critic, batch, self.critic_target(batch))

    @torch.no_grad()
    def critic_target(self, batch: Batch) -> Tensor:
        """Return every head's target ``y_i``, ``(K, B)``, with target policy smoothing."""
        config = self.config
        action = self.propose(self.target_policy, batch.next_observation)
        noise = torch.randn(action.shape, generator=self.generator, device=self.device)
        noise.mul_(config.target_policy_noise).clamp_(-config.target_noise_clip, config.target_noise_clip)
        action = (action + noise).clamp_(-1.0, 1.0)
        next_value = self.target_critic.smallest_of_own_actions(batch.next_observation, action)
        return td_target(batch, next_value)

    def propose(self, policy: nn.Module, observation: Tensor) -> Tensor:
        """Return the actions of ``policy`` that the critic's heads value, ``(K, B, A)``."""
        return squashed(ask(policy, observation), self.critic.heads)

    def improve_actor(self, batch: Batch) -> Tensor:
        """Take one gradient step of the policy, or those of a method, and return its loss."""
        loss = None
        if self.methods:
            self.begin_actor_update()
            loss = self.descend_apart(lambda: self.actor_losses(batch))
        if loss is None:
            loss = self.actor_loss(batch)
            self.actor_optimizer.descend(loss)
        return loss

    def actor_loss(self, batch: Batch) -> Tensor:
        """Return ``−Σ_i mean_B Q_{1,i}(s, π_i(s))``; no gradient reaches the critics."""
        return self.actor_losses(batch).sum()

    def actor_losses(self, batch: Batch) -> Tensor:
        """Return the loss of each sub-policy ``(K,)``, the methods' terms included."""
        said = ask(self.policy, batch.observation, updated=True)
        action = squashed(said)
        losses = -self.critic.first_of_own_actions(batch.observation, action).mean(1)
        worth = functools.partial(self._worth, batch, action)
        return self.taught(losses, lambda: ActorPass(batch, losses, action, besides(said), worth))

    @torch.no_grad()
    def _worth(self, batch: Batch, action: Tensor) -> Tensor:
        """Return ``min_m Q_{m,i}(s, a_i)``, ``(K, B)``."""
        return self.critic.smallest_of_own_actions(batch.observation, action)

    def _actor_is_due(self) -> bool:
        return (self.num_updates + 1) % self.config.policy_delay == 0

    # ---- acting -------------------------------------------------------------------------------------------------

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        action = self._mean(observation, deterministic)
        if deterministic:
            return action
        noise = self.config.exploration_noise * self.rng.standard_normal(action.shape, dtype=np.float32)
        return np.clip(action + noise, -1.0, 1.0)

    def _mean(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return the action of the sub-policy that acts, ``(n, A)``, to which noise is added unless deterministic."""
        if (said := self.acted(observation, deterministic)) is None:
            return self.require_finite_output(squashed(self._torch_forward(observation))[-1].cpu().numpy())
        action = np.tanh(said)
        return action if action.ndim == observation.ndim else action.mean(0)  # of several sub-policies at once


def squashed(said: Any, last: int = 0) -> Tensor:
    """Return the actions in [-1, 1] that an actor said, ``(K, B, A)``: a record holds them before the squash.

    Args:
        said: see ``TD3``.
        last: of how many sub-policies only, the last ones; 0 for all.
    """
    output = output_of(said)
    output = output if not last or last == len(output) else output[-last:]
    return output if isinstance(said, Tensor) else torch.tanh(output)


def textbook_actor(observation_size: int, action_size: int, config: OffPolicyConfig) -> DeterministicActor:
    """Return the deterministic actor that ``config`` describes."""
    return DeterministicActor(observation_size, action_size, config.net_arch, config.activation)
