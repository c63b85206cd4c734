"""Twin Delayed DDPG (Fujimoto et al. 2018), readable alone.

Shapes: ``K`` sub-policies (1 in the textbook), ``M`` critics (2), ``B`` transitions, ``A`` action size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import OffPolicyConfig, require
from agents.loop.acting import NumpyForward, TorchForward
from agents.loop.agent import OffPolicyAgent
from agents.nets.networks import Critic, DeterministicActor, textbook_critic
from agents.nets.optim import FusedAdam
from agents.nets.td import MovingAverage, td_target
from agents.replay.buffers import Batch


@dataclass(frozen=True)
class TD3Config(OffPolicyConfig):
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
        meter: see ``OffPolicyAgent``.
        actor: a function ``(observation size, action size, config) -> module`` whose forward returns actions
            ``(K, B, A)``; by default ``DeterministicActor`` (K = 1).
        critic: a function ``(observation size, action size, config) -> Critic``; by default twins of one head.
        settings: keys of ``TD3Config``.
    """

    config_class = TD3Config
    config: TD3Config

    def __init__(
        self,
        env: Any,
        *,
        meter: Any = None,
        actor: Callable[..., nn.Module] | None = None,
        critic: Callable[..., Critic] | None = None,
        **settings: Any,
    ) -> None:
        self._actor_of, self._critic_of = actor or textbook_actor, critic or textbook_critic
        super().__init__(env, meter=meter, **settings)
        if isinstance(self.policy, DeterministicActor) and self.device.type == "cpu":
            self._numpy_forward = NumpyForward(self.policy.net, self.meter, self.flops_per_action)
        else:
            self._torch_forward = TorchForward(self.policy, self.device)

    def build(self) -> None:
        config, sizes = self.config, (self.observation_shape[0], self.action_space.shape[0])
        self.policy = self._actor_of(*sizes, config).to(self.device)
        self.target_policy = self._actor_of(*sizes, config).to(self.device).requires_grad_(False)
        self.critic = self._critic_of(*sizes, config).to(self.device)
        self.target_critic = self._critic_of(*sizes, config).to(self.device).requires_grad_(False)
        self.target_policy.load_state_dict(self.policy.state_dict())
        self.actor_average = MovingAverage(self.policy, self.target_policy, config.tau)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.critic_average = MovingAverage(self.critic, self.target_critic, config.tau)
        self.actor_optimizer = FusedAdam(self.policy.parameters(), lr=config.learning_rate)
        self.critic_optimizer = FusedAdam(self.critic.parameters(), lr=config.learning_rate)

    @property
    def actor(self) -> nn.Module:
        return self.policy

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {
            "actor": self.policy,
            "target_actor": self.target_policy,
            "critic": self.critic,
            "target_critic": self.target_critic,
        }

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer}

    # ---- learning -----------------------------------------------------------------------------------------------

    def update_kind(self) -> str:
        return "critic and actor" if self._actor_is_due() else "critic"

    def update(self, batch: Batch) -> dict[str, Tensor]:
        critic_loss = self.critic_loss(batch)
        self.critic_optimizer.descend(critic_loss)
        metrics = {"critic_loss": critic_loss.detach()}
        if self._actor_is_due():
            metrics["actor_loss"] = self.improve_actor(batch).detach()
            self.critic_average.update()
            self.actor_average.update()
        return metrics

    def critic_loss(self, batch: Batch) -> Tensor:
        """Return ``½ Σ_m Σ_i mean_B (Q_{m,i}(s, a) − y_i)²`` with target policy smoothing."""
        config = self.config
        with torch.no_grad():
            action = self.propose(self.target_policy, batch.next_observation)
            noise = torch.randn(action.shape, generator=self.generator, device=self.device)
            noise.mul_(config.target_policy_noise).clamp_(-config.target_noise_clip, config.target_noise_clip)
            action = (action + noise).clamp_(-1.0, 1.0)
            next_value = self.target_critic.smallest_of_own_actions(batch.next_observation, action)
            target = td_target(batch, next_value)
        return self.critic.squared_error(batch.observation, batch.action, target)

    def propose(self, policy: nn.Module, observation: Tensor) -> Tensor:
        """Return the actions of ``policy`` that the critic's heads value, ``(K, B, A)``."""
        return policy(observation)

    def improve_actor(self, batch: Batch) -> Tensor:
        """Take one gradient step of the policy and return its loss."""
        loss = self.actor_loss(batch)
        self.actor_optimizer.descend(loss)
        return loss

    def actor_loss(self, batch: Batch) -> Tensor:
        """Return ``−Σ_i mean_B Q_{1,i}(s, π_i(s))``; no gradient reaches the critics."""
        action = self.policy(batch.observation)
        return -self.critic.first_of_own_actions(batch.observation, action).mean(1).sum()

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
        if hasattr(self, "_numpy_forward"):
            return np.tanh(self._numpy_forward(observation))
        return self._torch_forward(observation)[-1].cpu().numpy()


def textbook_actor(observation_size: int, action_size: int, config: OffPolicyConfig) -> DeterministicActor:
    """Return the deterministic actor that ``config`` describes."""
    return DeterministicActor(observation_size, action_size, config.net_arch, config.activation)
