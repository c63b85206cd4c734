"""BEXA: SAC and TD3 whose policies leave early, through gates that a linear program teaches to keep a budget.

Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks". The textbook agents are given an actor
with K exits and critics with K heads; what is added here is wiring: exits act (``ExitForward``), values of exits teach
gates (``GateTeacher``), and one more term joins the actor's loss.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from agents.common.buffers import Batch
from agents.common.config import OffPolicyConfig
from agents.common.exit_acting import ExitForward
from agents.common.networks import Critic, SquashedSample, squashed_gaussian
from agents.common.optim import FusedAdam
from agents.common.spaces import NoEnvironment
from agents.recipes.bexa_config import BexaSACConfig, BexaTD3Config, ExitSettings
from agents.sac import SAC
from agents.td3 import TD3
from budget_wrappers.errors import WrapperOrderError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.selection.gates import GateTeacher

TEACHER = ("budget", "reference", "correction", "gap")
"""What a checkpoint holds of the gates' teacher."""


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


class ExitAgent:
    """What SAC and TD3 with exits share; comes before the agent among the bases.

    Attributes:
        teacher: turns the exits' values into the gates' losses.
        exits: acts through the policy's gates and counts which exits acted.
    """

    config: Any
    actor: EarlyExitNetwork
    actor_name: ClassVar[str] = "actor"
    """Of the actor's optimizer among ``optimizers``."""

    def build(self) -> None:
        """Make the agent's parts, then the gates' teacher and an optimizer for each exit where they step apart."""
        super().build()
        config: ExitSettings = self.config
        self._require_budget(self.env)
        self.teacher = GateTeacher(
            self.actor.flops,
            config.budget,
            config.gate_training,
            config.gate_loss,
            config.gate_temperature,
            config.gate_fraction,
            config.budget_feedback,
        )
        self.exit_optimizers: list[FusedAdam] = []
        if config.scheme == "stepwise":
            parts = zip(self.actor.stages, self.actor.exits, strict=True)
            rate = super().optimizers[self.actor_name].param_groups[0]["lr"]
            self.exit_optimizers = [FusedAdam([*s.parameters(), *layer.parameters()], lr=rate) for s, layer in parts]
        self.gate_metrics: dict[str, Tensor] = {}
        self._seen = np.zeros(len(self.actor.exits), dtype=np.int64)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Every optimizer, for checkpoints."""
        own = dict(super().optimizers)
        if self.exit_optimizers:
            own.pop(self.actor_name)
        return own | {f"exit {number + 1}": optimizer for number, optimizer in enumerate(self.exit_optimizers)}

    def set_budget(self, budget: float) -> None:
        """Teach the gates another budget from the next update on.

        An agent that reads its budget from the observation passes it on to the wrapper that writes it there, where it
        holds from the next reset on.

        Raises:
            InfeasibleBudgetError: below 0, the cost of the cheapest exit, or NaN.
            ConfigError: no share in [0, 1], where it goes into the observation.
        """
        if self.config.budget_from_observation:
            self.env.get_wrapper_attr("set_budget")(budget)
        else:
            self.teacher.set_budget(budget)

    def set_env(self, env: Any) -> None:
        """Train on ``env`` from now on; see ``OffPolicyAgent``."""
        self._require_budget(env)
        super().set_env(env)

    def _require_budget(self, env: Any) -> None:
        """Raise unless the observations of ``env`` end in a budget, where it is to be read from there."""
        wrapped = isinstance(env, gym.Wrapper) and env.has_wrapper_attr("budget")
        if self.config.budget_from_observation and not wrapped and not isinstance(env, NoEnvironment):
            raise WrapperOrderError(
                f"budget_from_observation=True and {env} adds no budget: expected BudgetAwareObservation(env, "
                "'budget', draw=(0.0, 1.0)) around it, flattened, so that the last number of an observation is one; "
                "budget_input=True (--budget-input) in a run"
            )

    def plain_state(self) -> dict[str, Any]:
        """Return the budget and what its teacher has found out, and the actions that it has noted."""
        teacher = {name: getattr(self.teacher, name) for name in TEACHER}
        return {**super().plain_state(), "teacher": teacher, "seen": self._seen.tolist()}

    def load_plain_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``plain_state`` returned."""
        super().load_plain_state(state)
        for name in TEACHER:
            setattr(self.teacher, name, state["teacher"][name])
        self._seen = np.array(state["seen"])

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one gradient step of every part; the gates' loss and cost and the exits' shares are logged, too."""
        self._note_acting()
        return {**super().update(batch), **self.gate_metrics, **self.exit_shares()}

    def _note_acting(self) -> None:
        """Tell the teacher what the actions since the last update cost."""
        rows = self.exits.rows
        fresh, self._seen = rows - self._seen, rows
        if self.config.acting == "early_exit" and not self.config.budget_from_observation and fresh.any():
            self.teacher.observe(float(fresh @ np.array(self.teacher.costs) / fresh.sum()))

    def exit_shares(self) -> dict[str, Tensor]:
        """Return the share of rows that left at each exit since training began, and their mean normalised cost."""
        rows, flops = self.exits.rows, np.array(self.exits.flops)
        shares = rows / max(int(rows.sum()), 1)
        low, high = min(self.actor.flops), max(self.actor.flops)
        spent = {"acting/cost": (shares @ flops - low) / (high - low)} if rows.any() else {}
        named = dict(zip((f"acting/{name}" for name in self.exits.names), shares, strict=True)) | spent
        named |= {"acting/gap": self.teacher.gap}
        return {name: torch.tensor(float(value)) for name, value in named.items()}

    def with_gates(self, losses: Tensor, logits: Tensor, values: Tensor, observation: Tensor) -> Tensor:
        """Return the exits' losses with the gates' added, ``(K,)``.

        Args:
            losses: shape ``(K,)``.
            logits: of the gates, ``(B, K − 1)``.
            values: of the exits, ``(K, B)``.
            observation: that both are of, ``(B, O)``.
        """
        config = self.config
        if config.gate_loss_scale and self.num_updates % config.gate_interval == 0:
            budget = observation[:, -1] if config.budget_from_observation else None
            gates = self.teacher.losses(logits, values.detach().t(), budget)
            losses = losses + config.gate_loss_scale * nn.functional.pad(gates, (0, 1))
            self.gate_metrics = {"gate/loss": gates.detach().sum()}
        self.gate_metrics["gate/expected_cost"] = self.teacher.expected_cost(logits)
        return losses

    def imitating(self, losses: Tensor, copying: Tensor) -> Tensor:
        """Return the losses ``(K,)`` with those of all exits but the last replaced by what imitating it costs.

        Args:
            losses: of learning, shape ``(K,)``.
            copying: distance to the last exit, ``(K − 1,)``.
        """
        return torch.cat([self.config.imitation_scale * copying, losses[-1:]])

    def descend_stepwise(self, losses_of: Callable[[], Tensor], max_norm: float | None = None) -> Tensor:
        """Take one step of each exit's own stage, head and gate, each on fresh losses; return their sum."""
        total = []
        for number, optimizer in enumerate(self.exit_optimizers):
            loss = losses_of()[number]
            optimizer.descend(loss, max_norm)
            total.append(loss.detach())
        return torch.stack(total).sum()

    def leave(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return the output of the exits that the rows of ``observation`` ``(n, O)`` leave at; metered."""
        return self.exits(observation, self.rng, deterministic and self.config.gate == "threshold")

    def _start_metering(self) -> None:
        # Not watched: what acts is the engine in ``exits``, which charges by exit.
        self.exits = ExitForward(self.actor, self.meter, self.config.acting)
        self.flops_per_action = max(self.exits.flops)


class ExitActorCritic(ExitAgent):
    """The same for agents with critics of their own."""

    def build(self) -> None:
        """Make the agent's parts, the critics' optimizer at their own rate."""
        super().build()
        self.critic_optimizer = FusedAdam(self.critic.parameters(), **self.config.critic_rate)


class BexaSAC(ExitActorCritic, SAC):
    """SAC with early exits under a budget.

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

    def _distribution(self, observation: np.ndarray, deterministic: bool) -> tuple[np.ndarray, np.ndarray]:
        mean, log_std = np.split(self.leave(observation, deterministic), 2, axis=-1)
        return mean, log_std


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
        return np.tanh(self.leave(observation, deterministic))


def gaussian_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return ``KL(π_K ‖ π_i)`` of every exit but the last, ``(K − 1, B)``; no gradient reaches the last.

    Of the Gaussians before the squash, which a common bijection leaves as it is.

    Args:
        mean: shape ``(K, B, A)``.
        log_std: shape ``(K, B, A)``; bounded as in ``squashed_gaussian``.
    """
    log_std = log_std.clamp(-20.0, 2.0)
    taught, model = (mean[:-1], log_std[:-1]), (mean[-1].detach(), log_std[-1].detach())
    ratio = torch.exp(2.0 * (model[1] - taught[1]))
    distance = ((model[0] - taught[0]) * torch.exp(-taught[1])).square()
    return (taught[1] - model[1] + 0.5 * (ratio + distance - 1.0)).sum(-1)


def gaussian_exits(observation_size: int, action_size: int, config: Any) -> EarlyExitNetwork:
    """Return an actor whose exits say means and log standard deviations."""
    return EarlyExitNetwork(observation_size, 2 * action_size, config.net_arch, config.depths, config.activation)


def deterministic_exits(observation_size: int, action_size: int, config: Any) -> EarlyExitNetwork:
    """Return an actor whose exits say actions, before the squash."""
    return EarlyExitNetwork(observation_size, action_size, config.net_arch, config.depths, config.activation)


def critic_of_exits(observation_size: int, action_size: int, config: OffPolicyConfig) -> Critic:
    """Return twins with a head for each exit, or with one for all."""
    return Critic(observation_size, action_size, config.net_arch, config.activation, heads=config.critic_heads)
