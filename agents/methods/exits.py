"""Early exits under a budget, as a method of any agent: the actor leaves early, and gates learn when it may.

Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks" (BEXA). Exits act (``ExitForward``), their
values teach gates (``GateTeacher``), and one more term joins the loss of what acts. ``agents.methods.bexa`` has the
published agents as presets.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import require
from agents.loop.collect import Step
from agents.loop.method import ActorPass, Role
from agents.loop.spaces import NoEnvironment
from agents.methods.budget_input import budget_wrapper, require_budget, require_budget_count
from agents.methods.exit_kinds import KINDS
from agents.methods.exit_reports import BUDGETED, ExitReports
from agents.methods.exits_config import ExitsConfig, require_depths, require_given_budget
from agents.nets.kept import Kept
from agents.nets.networks import Critic
from agents.nets.optim import FusedAdam
from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy
from budget_wrappers.selection.gates import GateTeacher


class Exits(ExitReports):
    """Early exits in the actor of SAC, TD3 or CQL, or in the network of DQN or discrete CQL.

    Args:
        settings: keys of ``ExitsConfig``.

    Attributes:
        teacher: turns the exits' values into the gates' losses.
        exits: acts through the policy's gates and counts which exits acted.
        exit_optimizers: one an exit, where exits step apart.

    Raises:
        ConfigError: an unknown key or a value out of bounds.

    Example:
        >>> import gymnasium as gym
        >>> from agents import SAC
        >>> agent = SAC(gym.make("Pendulum-v1"), net_arch=(16, 16), methods=[Exits(budget=0.3)])
        >>> agent.exits.flops  # of an action that leaves at exit 1, 2 and 3
        (18, 198, 710)
        >>> agent.set_budget(0.1)
    """

    name = "exits"
    config_class = ExitsConfig
    config: ExitsConfig
    offers = (
        *("teacher", "exits", "exit_optimizers", "set_budget", "given_budget", "exit_policy", "expected_cost"),
        *("meets_budget", "exit_shares", "replay_shares", "with_gates"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.exit_optimizers: list[FusedAdam] = []
        self._gates_due, self._taught = True, False

    # ---- making an agent --------------------------------------------------------------------------------------------

    def require(self, agent: Any, env: Any) -> None:
        """Raise where an agent has no use of exits, cannot meet a budget, or has no budget in its observations."""
        says = getattr(agent, "says", None)
        if says not in KINDS:
            raise ConfigError(
                f"{type(agent).__name__} with exits: expected SAC, TD3, DQN, CQL or discrete CQL, whose actors have "
                "sub-policies; leave the method out"
            )
        self.kind = KINDS[says]
        self.depths = require_depths(self.config.exit_after, agent.config.net_arch)
        dueling = getattr(agent.config, "dueling", False)
        require(not dueling, "dueling", dueling, "False: the exits of one trunk are one stream each")
        rate = self.config.critic_learning_rate
        require(not rate or says != "values", "critic_learning_rate", rate, "0: this agent has no critics")
        if agent.offline:
            require_given_budget(self.config)

    def network(self, agent: Any, role: Role) -> Callable[..., nn.Module] | None:
        """Return what makes the actor with exits, and a critic with a head for each, or with one for all."""
        if role == "actor":
            return self._exits_of
        return self._critic_of

    def _exits_of(self, observation_size: int, action_size: int, config: Any) -> EarlyExitNetwork:
        outputs, read = self.kind.outputs(action_size), self.config.budget_from_observation
        return EarlyExitNetwork(observation_size, outputs, config.net_arch, self.depths, config.activation, read)

    def _critic_of(self, observation_size: int, action_size: int, config: Any) -> Critic:
        heads = 1 if self.config.exit_training == "imitate" else len(self.depths)
        return Critic(observation_size, action_size, config.critic_widths, config.activation, heads=heads)

    def build(self, agent: Any) -> None:
        """Make the gates' teacher, an optimizer for each exit where they step apart, the critics' at its own rate."""
        config = self.config
        self._require_budget(agent.env)
        self.begin()
        self.exits = ExitForward(agent.actor, agent.meter, config.acting)
        self.teacher = GateTeacher(
            agent.actor.flops,
            config.budget,
            config.gate_training,
            config.gate_loss,
            config.gate_temperature,
            config.gate_fraction,
            config.budget_feedback,
        )
        self.exit_optimizers = []
        self.actor_name = next(name for name, part in agent.own_modules.items() if part is agent.actor)
        if config.scheme == "stepwise":
            parts = zip(agent.actor.stages, agent.actor.exits, strict=True)
            rate, eps = agent.own_optimizers[self.actor_name].param_groups[0]["lr"], agent.config.adam_eps
            self.exit_optimizers = [FusedAdam([stage, layer], lr=rate, eps=eps) for stage, layer in parts]
        if agent.says != "values":
            rate = config.critic_learning_rate or agent.config.learning_rate
            agent.critic_optimizer = FusedAdam(agent.critic, lr=rate, eps=agent.config.adam_eps)

    def start_metering(self, agent: Any) -> int:
        """Return what the dearest exit costs: the engine of the exits acts, and charges by exit; nothing is watched."""
        return max(self.exits.flops)

    def optimizers(self, agent: Any, own: Mapping[str, torch.optim.Optimizer]) -> Mapping[str, torch.optim.Optimizer]:
        """Return the optimizers; where exits step apart theirs are in the place of the actor's."""
        if not self.exit_optimizers:
            return own
        rest = {name: optimizer for name, optimizer in own.items() if name != self.actor_name}
        return rest | {f"exit {number + 1}": optimizer for number, optimizer in enumerate(self.exit_optimizers)}

    # ---- the budget -------------------------------------------------------------------------------------------------

    def set_budget(self, agent: Any, budget: Any) -> None:
        """Teach the gates another budget, one number, from the next update on.

        An agent that reads its budget from the observation passes it on to the wrapper that writes it there, where it
        holds from the next reset on; ``None`` has it drawn again, and of a vector environment each may have its own,
        ``(n,)``. Another environment, such as one for evaluations, is told by its own ``set_budget`` or at its resets.

        Raises:
            InfeasibleBudgetError: below 0, the cost of the cheapest exit, or NaN.
            ConfigError: infinite or no number; no share in [0, 1], where it goes into the observation; settings with
                which no budget has an effect.
            CheckpointError: it goes into the observation, and the agent was loaded without an environment.
        """
        self._require_effect(budget)
        if not self.config.budget_from_observation:
            self.teacher.set_budget(budget)
            return
        if isinstance(agent.env, NoEnvironment):
            agent.env.reset()  # raises: there is no observation to put a budget into
        budget_wrapper(agent.env).set_budget(budget)

    def _require_effect(self, budget: Any) -> None:
        """Raise where acting would cost the same with any budget."""
        config, asked = self.config, f"set_budget({budget!r}) with "
        if config.gate_training not in BUDGETED:
            raise ConfigError(
                f"{asked}gate_training={config.gate_training!r}, which spends whatever exits are worth: expected "
                f"gate_training of {' or '.join(BUDGETED)}"
            )
        if config.acting != "early_exit":
            raise ConfigError(f"{asked}acting={config.acting!r}, which asks no gate: expected acting='early_exit'")
        if not config.gate_loss_scale:
            raise ConfigError(
                f"{asked}gate_loss_scale=0, with which gates learn nothing: expected gate_loss_scale above 0, such as "
                "1e-2"
            )

    def before_env(self, agent: Any, env: Any) -> Callable[[], None]:
        """Check that observations hold the budget, where it is read there.

        A budget that ``env`` was given stays; else it is that of the environment before.
        """
        self._require_budget(env)
        given = agent.given_budget
        require_budget_count(env, given)

        def carry_on() -> None:
            if given is not None and agent.given_budget is None:
                budget_wrapper(env).set_budget(given)

        return carry_on

    def _require_budget(self, env: Any) -> None:
        """Raise unless the observations of ``env`` end in a budget, where it is to be read from there."""
        if self.config.budget_from_observation and not isinstance(env, NoEnvironment):
            require_budget(env)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def before_actor_update(self, agent: Any) -> None:
        """Count an update of what acts, and settle whether its gates learn."""
        self._gates_due = self.actor_updates % self.config.gate_interval == 0
        self.actor_updates += 1
        self._taught = False

    def actor_losses(self, agent: Any, made_of: ActorPass) -> Tensor:
        """Return each exit's loss, its gate's included, ``(K,)``.

        While imitating data every exit learns by itself, whatever ``exit_training``.
        """
        losses, apart = made_of.losses, self.config.exit_training == "imitate" and not made_of.imitates
        if apart:
            copying = self.config.imitation_scale * self.kind.imitation(made_of)
            losses = torch.cat([copying, losses[-1:]])
        worth = self.kind.judged_by_the_last(made_of) if apart else made_of.worth()
        return self.with_gates(losses, made_of.said.logits, worth, made_of.batch.observation)

    def with_gates(self, losses: Tensor, logits: Tensor, values: Tensor, observation: Tensor) -> Tensor:
        """Return the exits' losses with the gates' added, ``(K,)``.

        Args:
            losses: shape ``(K,)``.
            logits: of the gates, ``(B, K − 1)``.
            values: of the exits, ``(K, B)``.
            observation: that both are of, ``(B, O)``.
        """
        config = self.config
        if config.gate_loss_scale and self._gates_due:
            budget = observation[:, -1] if config.budget_from_observation else None
            gates = self.teacher.losses(logits, values.detach().t(), budget, self._taught)
            self._taught = True
            losses = losses + config.gate_loss_scale * nn.functional.pad(gates, (0, 1))
            self.gate_metrics = {"gate/loss": gates.detach().sum()}
        self._logits = logits.detach()
        return losses

    def descend(self, agent: Any, losses: Callable[[], Tensor], max_norm: float | None) -> Tensor | None:
        """Take one step of each exit's own stage, head and gate, each on fresh losses, where exits step apart."""
        if not self.exit_optimizers:
            return None
        total = []
        for number, optimizer in enumerate(self.exit_optimizers):
            loss = losses()[number]
            optimizer.descend(loss, max_norm)
            total.append(loss.detach())
        return torch.stack(total).sum()

    def update_kind(self, agent: Any) -> str:
        """Return a name for the work of the next update in which gates learn."""
        if not self.config.gate_loss_scale or self.actor_updates % self.config.gate_interval:
            return ""
        return f"gates with {self.teacher.affordable} exits to afford"

    # ---- acting -----------------------------------------------------------------------------------------------------

    def before_acting(self, agent: Any, observation: np.ndarray) -> None:
        """Forget who acted last."""
        self.exits.taken = agent.chosen = None

    def act(self, agent: Any, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return the output of the exits that the rows of ``observation`` ``(n, O)`` leave at; metered."""
        return self.exits(observation, agent.rng, deterministic and self.config.gate == "threshold")

    def flops_of_last_action(self, agent: Any) -> int:
        """Return what the exits cost that acted last."""
        return self.exits.last_flops

    def after_acting(self, agent: Any, action: np.ndarray) -> None:
        """Note which exits chose the actions; −1 for those that were drawn."""
        self._acted_by, taken = np.full(len(action), -1), self.exits.taken
        if taken is not None:
            gated = np.ones(len(action), dtype=bool) if agent.chosen is None else agent.chosen
            self._acted_by[gated] = taken[gated] if len(taken) == len(action) else taken

    def after_storing(self, agent: Any, step: Step) -> None:
        """Store which exits acted, and tell the teacher their cost.

        Actions taken for other reasons, such as an evaluation, do not count towards the budget.
        """
        acted_by = self._acted_by[list(step.streams)]
        agent.replay.note_acting(np.where(acted_by < 0, -1, acted_by + agent.acting_offset))
        if self.meets_budget:
            rows = np.bincount(acted_by[acted_by >= 0], minlength=len(self.exits.names))
            if rows.any():
                self.teacher.observe(self.exits.cost_of(rows), int(rows.sum()))

    def exit_policy(self, agent: Any) -> ExitPolicy:
        """Return the exits as sub-policies that act deterministically, for ``EarlyExitAction``; no gate is asked."""
        return ExitPolicy(
            agent.actor,
            lambda output: agent.to_env_action(self.kind.certain(output[None]))[0],
            agent.to_array,
            self.exits.at,
            convention=agent.meter.convention,
        )

    def structure_changed(self, agent: Any, kept: Kept | None = None) -> None:
        """Follow the costs of the exits."""
        self.exits.follow()
        self.teacher.set_flops(agent.actor.flops)
