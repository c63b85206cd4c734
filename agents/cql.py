"""Conservative Q-learning (Kumar et al. 2020, the form CQL(H)): SAC or DQN on a data set, with one more term.

``L = L_TD + α·Σ_{m,i} mean_B [log Σ_a exp Q_{m,i}(s, a) − Q_{m,i}(s, a_data)]`` pushes values down wherever the data
say nothing and up where they do. Discrete actions are summed exactly; continuous ones by importance sampling from
uniform actions and from the policy at ``s`` and at ``s'``.

Shapes: ``K`` sub-policies, ``M`` critics, ``B`` transitions, ``A`` action size, ``S`` sampled actions a state.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from agents.config import require
from agents.dqn import DQN, DQNConfig, chosen
from agents.loop.checkpoint import load_agent
from agents.loop.method import ActorPass, Method
from agents.loop.offline import environment_for, learn_offline, replay_of
from agents.nets.networks import LOG_STD_MAX, LOG_STD_MIN, Critic, PolicySample, squashed_gaussian
from agents.nets.optim import FusedAdam
from agents.nets.td import td_target, twin_critic_loss, twin_critic_losses
from agents.replay.buffers import Batch, ReplayBuffer
from agents.sac import SAC, SACConfig


def conservative_gap(values: Tensor, data_value: Tensor, log_density: Tensor | float = 0.0) -> Tensor:
    """Return ``mean_B [log Σ_S exp(Q(s, a_S) − log μ_S) − Q(s, a_data)]`` of every critic and head.

    Args:
        values: of the ``S`` actions, shape ``(..., S, B)``.
        data_value: of the action in the data, shape ``(..., B)``.
        log_density: of each action under what drew it plus ``log S``, shape ``(..., S, B)``, which makes the sum an
            estimate of the integral over all actions; 0 where ``S`` runs over every action.

    Returns:
        Shape ``(...)``, at least 0 in the discrete case.
    """
    return (torch.logsumexp(values - log_density, dim=-2) - data_value).mean(-1)


def squashed_density(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """Return ``log π(a) = Σ_A [log N(u; mean, std) − log(1 − a²)]`` with ``u = atanh a``, at the given action.

    Args:
        mean: shape ``(K, B, A)``.
        log_std: shape ``(K, B, A)``; bounded as in ``squashed_gaussian``.
        action: in [-1, 1], shape ``(B, A)``. The bounds themselves, where ``u`` is infinite, are moved inwards.

    Returns:
        Shape ``(K, B)``.
    """
    log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    inside = action.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
    distance = (torch.atanh(inside) - mean) * torch.exp(-log_std)
    log_normal = -0.5 * distance.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return (log_normal - torch.log1p(-inside.square())).sum(-1)


@dataclass(frozen=True)
class CQLConfig(SACConfig):
    """Configuration of continuous CQL; ``learning_rate`` is the critics'.

    Attributes:
        actor_learning_rate: Adam's step size for the policy; below the critics', as the authors have it.
        cql_alpha: weight α of the conservative term, or ``"auto"`` to hold its gap at ``cql_target_gap`` by a
            Lagrange multiplier.
        cql_alpha_init: where a learned weight starts.
        cql_target_gap: τ, the gap a learned weight aims at.
        action_samples: n, actions of each of the three kinds, so ``S = 3n``.
        backup_entropy: whether targets count the policy's entropy, as in SAC.
        imitation_steps: updates in which the policy imitates the data before it follows the critics, which by then
            value what the data do (the authors' code: 40,000 of a million).
    """

    actor_learning_rate: float = 1e-4
    cql_alpha: float | Literal["auto"] = 5.0
    cql_alpha_init: float = 1.0
    cql_target_gap: float = 5.0
    action_samples: int = 10
    backup_entropy: bool = False
    imitation_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.actor_learning_rate > 0, "actor_learning_rate", self.actor_learning_rate, "a number above 0")
        require(self.cql_alpha == "auto" or self.cql_alpha >= 0, "cql_alpha", self.cql_alpha, "'auto' or 0 or more")
        require(self.cql_alpha_init > 0, "cql_alpha_init", self.cql_alpha_init, "a weight above 0")
        require(self.action_samples >= 1, "action_samples", self.action_samples, "at least 1 action")
        require(self.imitation_steps >= 0, "imitation_steps", self.imitation_steps, "0 or more updates")


class CQL(SAC):
    """Conservative Q-learning for continuous actions; ``DiscreteCQL`` is for discrete ones.

    Args:
        env: gives the spaces, is never stepped by ``learn``; ``None`` takes them from the data.
        dataset: a Minari data set, its folder or its id; ``None`` for an agent that only acts.
        meter, methods, actor, critic: see ``SAC``.
        settings: keys of ``CQLConfig``.

    Raises:
        DatasetError: data that do not fit the environment, or that cannot be read.
    """

    config_class = CQLConfig
    config: CQLConfig
    offline = True

    def __init__(
        self,
        env: Any = None,
        dataset: Any = None,
        *,
        meter: Any = None,
        methods: Sequence[Method] = (),
        actor: Callable[..., nn.Module] | None = None,
        critic: Callable[..., Critic] | None = None,
        **settings: Any,
    ) -> None:
        self._dataset = dataset
        super().__init__(
            environment_for(env, dataset), meter=meter, methods=methods, actor=actor, critic=critic, **settings
        )

    def build(self) -> None:
        super().build()
        config = self.config
        self.actor_optimizer = FusedAdam(self.policy, lr=config.actor_learning_rate, eps=config.adam_eps)
        automatic = config.cql_alpha == "auto"
        start = config.cql_alpha_init if automatic else config.cql_alpha
        self.log_cql_alpha = nn.Parameter(torch.tensor(float(start), device=self.device).log(), requires_grad=automatic)
        self.conservative_optimizer = FusedAdam([self.log_cql_alpha], lr=config.learning_rate)

    def make_replay(self) -> ReplayBuffer:
        return replay_of(self, self._dataset)

    @property
    def own_modules(self) -> Mapping[str, nn.Module]:
        return {**super().own_modules, "conservative": nn.ParameterDict({"log_cql_alpha": self.log_cql_alpha})}

    @property
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        automatic = self.log_cql_alpha.requires_grad
        return {**super().own_optimizers} | ({"conservative": self.conservative_optimizer} if automatic else {})

    def learn(self, gradient_steps: int, callback: Any = None, progress_bar: bool = False) -> Self:
        """Take ``gradient_steps`` more updates on the data set; see ``learn_offline``."""
        return learn_offline(self, gradient_steps, callback, progress_bar)

    @classmethod
    def load(cls, path: str, env: Any = None, meter: Any = None, **parts: Any) -> Self:
        """Return the agent that ``save`` wrote; pass ``dataset=…`` to let it learn on."""
        return load_agent(cls, path, env, meter, **parts)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        ent_coef = self.log_ent_coef.detach().exp()
        own = self.sample(batch.observation, updated=True)
        temperature = self._step_temperature(own.log_prob)
        td_loss, gap, weight = self._improve_critics(batch, ent_coef)
        if self.log_cql_alpha.requires_grad:
            self.conservative_optimizer.descend(self.conservative_loss(gap))
        actor_loss = self.improve_actor(batch, own, ent_coef)
        if (self.num_updates + 1) % self.config.target_update_interval == 0:
            self.critic_average.update()
            self.target_moved()
        return {
            "critic_loss": td_loss.detach(),
            "conservative_gap": gap.detach().mean(),
            "cql_alpha": weight,
            "actor_loss": actor_loss.detach(),
            "ent_coef": ent_coef,
            **temperature,
        }

    def _improve_critics(self, batch: Batch, ent_coef: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take the critics' gradient steps; return the temporal-difference loss, the gap and the weight of the gap."""
        weight, task = self.log_cql_alpha.detach().exp(), self._critic_task(batch, ent_coef)
        found: list[tuple[Tensor, Tensor]] = []

        def losses() -> Tensor:
            found.append(self._losses_of_task(batch, *task))
            return found[-1][0] + weight * found[-1][1].sum()

        self.descend_critics(losses)
        if len(found) > 1:  # of every member: one that has diverged is overwritten, and teaches no weight
            found = [pair for pair in found if all(bool(own.isfinite().all()) for own in pair)] or found
        td_losses, gaps = zip(*found, strict=True)
        return torch.stack(td_losses).mean(), torch.stack(gaps).mean(0), weight

    def critic_losses(self, batch: Batch, ent_coef: Tensor) -> tuple[Tensor, Tensor]:
        """Return the temporal-difference loss, the methods' terms included, and the gap ``(M, K)`` of the other term.

        The values of the data's action and of all sampled ones come out of one pass of ``(S + 1)·B`` rows.
        """
        return self._losses_of_task(batch, *self._critic_task(batch, ent_coef))

    @torch.no_grad()
    def _critic_task(self, batch: Batch, ent_coef: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the data's action and the sampled ones ``(K, S + 1, B, A)``, ``log(S·μ)`` of these, and y."""
        action, log_prob = self.policy_actions(batch)
        # The first action drawn at s' serves the target too.
        following = action.shape[1] // 2
        target = self.conservative_target(batch, action[:, following], log_prob[:, following], ent_coef)
        action, log_density = self.proposals(action, log_prob)
        return torch.cat([batch.action.expand(len(action), 1, -1, -1), action], 1), log_density, target

    def _losses_of_task(
        self, batch: Batch, action: Tensor, log_density: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        heads, samples, rows, width = action.shape
        observation = batch.observation.repeat(samples, 1)
        values = self.critic.of_own_actions(observation, action.reshape(heads, samples * rows, width))
        values = values.view(-1, heads, samples, rows)
        data_value = values[:, :, 0]
        gap = conservative_gap(values[:, :, 1:], data_value, log_density)
        if not self.altering:
            return twin_critic_loss(data_value, target), gap
        return self.altered(batch, twin_critic_losses(data_value, target)).sum(), gap

    def actor_losses(self, batch: Batch, own: PolicySample, ent_coef: Tensor) -> Tensor:
        """Return SAC's losses ``(K,)``, or at the beginning ``mean_B [α·log π_i(a_i|s) − log π_i(a_data|s)]``."""
        if not self._imitates():
            return super().actor_losses(batch, own, ent_coef)
        # An actor that says more is asked once, a plain one twice, as ever: one pass would round in another way.
        moments = own.moments if own.moments.said is not None else self.moments(batch.observation, updated=True)
        losses = (ent_coef * own.log_prob - squashed_density(moments.mean, moments.log_std, batch.action)).mean(1)

        def worth() -> Tensor:
            return self.critic.smallest_of_own_actions(batch.observation, own.action.detach())

        made_of = ActorPass(batch, losses, own.moments, own.moments.said, worth, imitates=True)
        return self.taught(losses, lambda: made_of)

    def update_kind(self) -> str:
        return "imitation" if self._imitates() else "update"

    def _imitates(self) -> bool:
        return self.num_updates < self.config.imitation_steps

    def policy_actions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return n actions at ``s``, then n at ``s'``, ``(K, 2n, B, A)``, and their log-densities ``(K, 2n, B)``."""
        both = self.moments(torch.cat([batch.observation, batch.next_observation]))
        mean, log_std = (part[-self.critic.heads :] for part in (both.mean, both.log_std))
        heads, rows, width = mean.shape
        n = self.config.action_samples
        # (K, 2B, A) -> (K, 2, 1, B, A), which the noise spreads over n draws.
        mean, log_std = (part.view(heads, 2, 1, rows // 2, width) for part in (mean, log_std))
        noise = torch.randn(heads, 2, n, rows // 2, width, generator=self.generator, device=self.device)
        action, log_prob = squashed_gaussian(mean.expand_as(noise), log_std.expand_as(noise), noise)
        return action.flatten(1, 2), log_prob.flatten(1, 2)

    def proposals(self, action: Tensor, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """Return the policy's actions and n uniform ones, ``(K, S, B, A)``, with ``log(S·μ)``, ``(K, S, B)``."""
        heads, drawn, rows, width = action.shape
        shape = (1, drawn // 2, rows, width)
        uniform = 2.0 * torch.rand(shape, generator=self.generator, device=self.device) - 1.0
        density = log_prob.new_full((heads, drawn // 2, rows), -width * math.log(2.0))
        action = torch.cat([action, uniform.expand(heads, -1, -1, -1)], 1)
        return action, torch.cat([log_prob, density], 1) + math.log(action.shape[1])

    def conservative_target(self, batch: Batch, action: Tensor, log_prob: Tensor, ent_coef: Tensor) -> Tensor:
        """Return ``R + γⁿ(1 − terminated)·min_m Q̄_{m,i}(s', a'_i)``, ``(K, B)``, with SAC's entropy where asked."""
        value = self.target_critic.smallest_of_own_actions(batch.next_observation, action)
        return td_target(batch, value - ent_coef * log_prob if self.config.backup_entropy else value)

    def conservative_loss(self, gap: Tensor) -> Tensor:
        """Return ``−log α·(mean gap − τ)``: α grows while the gap is above τ."""
        return -(self.log_cql_alpha * (gap.detach().mean() - self.config.cql_target_gap))


@dataclass(frozen=True)
class DiscreteCQLConfig(DQNConfig):
    """Configuration of discrete CQL; ``target_update_interval`` counts updates, as no environment is stepped.

    Attributes:
        cql_alpha: weight α of the conservative term.
    """

    target_update_interval: int = 1_000
    cql_alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.cql_alpha >= 0, "cql_alpha", self.cql_alpha, "0 or more")
        require(not self.prioritized, "prioritized", self.prioritized, "False: a data set is sampled uniformly")


class DiscreteCQL(DQN):
    """Conservative Q-learning for discrete actions.

    Args:
        env: gives the spaces, is never stepped by ``learn``; ``None`` takes them from the data.
        dataset: a Minari data set, its folder or its id; ``None`` for an agent that only acts.
        meter, methods, q_network: see ``DQN``.
        settings: keys of ``DiscreteCQLConfig``.

    Raises:
        DatasetError: data that do not fit the environment, or that cannot be read.
    """

    config_class = DiscreteCQLConfig
    config: DiscreteCQLConfig
    offline = True

    def __init__(
        self,
        env: Any = None,
        dataset: Any = None,
        *,
        meter: Any = None,
        methods: Sequence[Method] = (),
        q_network: Callable[..., nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        self._dataset = dataset
        super().__init__(environment_for(env, dataset), meter=meter, methods=methods, q_network=q_network, **settings)

    def make_replay(self) -> ReplayBuffer:
        return replay_of(self, self._dataset)

    def learn(self, gradient_steps: int, callback: Any = None, progress_bar: bool = False) -> Self:
        """Take ``gradient_steps`` more updates on the data set; see ``learn_offline``."""
        return learn_offline(self, gradient_steps, callback, progress_bar)

    @classmethod
    def load(cls, path: str, env: Any = None, meter: Any = None, **parts: Any) -> Self:
        """Return the agent that ``save`` wrote; pass ``dataset=…`` to let it learn on."""
        return load_agent(cls, path, env, meter, **parts)

    def losses(self, values: Tensor, batch: Batch, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return DQN's losses plus ``α·gap_i``, ``(K,)``, and the errors ``(K, B)``."""
        losses, error = super().losses(values, batch, target)
        gap = conservative_gap(values.transpose(1, 2), chosen(values, batch.action))
        return losses + self.config.cql_alpha * gap, error
