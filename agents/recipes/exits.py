"""What agents with early exits share, whatever they learn: acting through gates, teaching them, and the budget.

Mixed in before the agent: exits act (``ExitForward``), values of exits teach gates (``GateTeacher``), and one more term
joins the loss of what acts. See ``agents.recipes.bexa`` for the source.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from agents.common.buffers import Batch
from agents.common.collect import Step
from agents.common.optim import FusedAdam
from agents.common.spaces import NoEnvironment
from agents.recipes.bexa_config import ExitSettings
from agents.recipes.budget_input import budget_wrapper, require_budget, require_budget_count
from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.deploy.numpy_exits import NumpyExits
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy
from budget_wrappers.selection.gates import GateTeacher

BUDGETED = ("budget", "batch_budget")
"""Gate trainings that know a budget."""
TEACHER = ("budget", "reference", "correction", "gap")
"""What a checkpoint holds of the gates' teacher."""


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
        self._logits: Tensor | None = None
        self._expected_cost: Tensor | None = None
        self._actor_updates, self._gates_due, self._taught = 0, True, False
        self._kept_budget: Any = None

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Every optimizer, for checkpoints."""
        own = dict(super().optimizers)
        if self.exit_optimizers:
            own.pop(self.actor_name)
        return own | {f"exit {number + 1}": optimizer for number, optimizer in enumerate(self.exit_optimizers)}

    def set_budget(self, budget: Any) -> None:
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
        if isinstance(self.env, NoEnvironment):
            self.env.reset()  # raises: there is no observation to put a budget into
        budget_wrapper(self.env).set_budget(budget)

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

    @property
    def given_budget(self) -> float | list[float | None] | None:
        """What the wrapper that writes budgets into observations was given, by whomever; ``None`` where it draws them.

        Without an environment it is what the checkpoint says.
        """
        if not self.config.budget_from_observation:
            return None
        wrapper = budget_wrapper(self.env)
        return self._kept_budget if wrapper is None else wrapper.given_budget

    def set_env(self, env: Any) -> None:
        """Train on ``env`` from now on; see ``OffPolicyAgent``.

        Where observations hold the budget, one that ``env`` was given stays; else it is that of the environment before.
        """
        self._require_budget(env)
        given = self.given_budget
        require_budget_count(env, given)
        super().set_env(env)
        if given is not None and self.given_budget is None:
            budget_wrapper(env).set_budget(given)

    def _require_budget(self, env: Any) -> None:
        """Raise unless the observations of ``env`` end in a budget, where it is to be read from there."""
        if self.config.budget_from_observation and not isinstance(env, NoEnvironment):
            require_budget(env)

    def plain_state(self) -> dict[str, Any]:
        """Return the budget, what its teacher has found out, and who has acted."""
        teacher = {name: getattr(self.teacher, name) for name in TEACHER}
        own = {"teacher": teacher, "counts": self.exits.counts.tolist()}
        own |= {"actor_updates": self._actor_updates, "given_budget": self.given_budget}
        expected = self.expected_cost()
        own["expected_cost"] = None if expected is None else float(expected)
        return {**super().plain_state(), **own}

    def load_plain_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``plain_state`` returned."""
        super().load_plain_state(state)
        for name in TEACHER:
            setattr(self.teacher, name, state["teacher"][name])
        self.exits.counts[:] = state["counts"]
        self._actor_updates = state["actor_updates"]
        expected = state.get("expected_cost")  # not in files of earlier versions
        self._logits, self._expected_cost = None, None if expected is None else torch.tensor(expected)
        self._kept_budget = given = state["given_budget"]
        if given is not None and not isinstance(self.env, NoEnvironment):
            require_budget_count(self.env, given)
            budget_wrapper(self.env).set_budget(given)

    def explore(self, observation: np.ndarray) -> np.ndarray:
        """Return the actions that training takes, and note which exits chose them; see ``OffPolicyAgent``."""
        self.exits.taken, self._gated = None, np.ones(len(observation), dtype=bool)
        action = super().explore(observation)
        self._acted_by = np.full(len(observation), -1)
        if self.exits.taken is not None:
            every = len(self.exits.taken) == len(observation)
            self._acted_by[self._gated] = self.exits.taken[self._gated] if every else self.exits.taken
        return action

    def store(self, step: Step) -> None:
        """Put one step's transitions into the replay, with the exits that acted, and tell the teacher their cost.

        Whatever else asks the agent for actions, such as an evaluation, is no part of what the budget is to be met by.
        """
        super().store(step)
        acted_by = self._acted_by[list(step.streams)]
        self.replay.note_acting(acted_by)
        if self.meets_budget:
            rows = np.bincount(acted_by[acted_by >= 0], minlength=len(self.exits.names))
            if rows.any():
                self.teacher.observe(self.exits.cost_of(rows), int(rows.sum()))

    def update_kind(self) -> str:
        """Return a name for the work of the next update, in which gates learn, or the actor alone; see the agent."""
        kind = super().update_kind()
        if not self.config.gate_loss_scale or self._actor_updates % self.config.gate_interval:
            return kind
        return f"{kind}, gates with {self.teacher.affordable} exits to afford"

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one gradient step of every part; the gates' loss is logged, too."""
        return {**super().update(batch), **self.gate_metrics}

    def logged(self) -> dict[str, Tensor]:
        """Return what is logged, with what the gates of the last batch would cost and the exits' shares."""
        expected = self.expected_cost()
        named = {} if expected is None else {"gate/expected_cost": expected}
        return {**super().logged(), **named, **self.exit_shares(), **self.replay_shares()}

    def expected_cost(self) -> Tensor | None:
        """Return what the gates of the last batch would cost, ``None`` before one; asked for only where it is read."""
        return self._expected_cost if self._logits is None else self.teacher.expected_cost(self._logits)

    @property
    def acting_counts(self) -> np.ndarray:
        """Rows that acted through each exit, in place: evaluations put it back."""
        return self.exits.counts

    @property
    def meets_budget(self) -> bool:
        """Whether acting is to cost one budget in the mean."""
        config = self.config
        one = config.gate_training in BUDGETED and not config.budget_from_observation
        return one and config.acting == "early_exit"

    def exit_shares(self) -> dict[str, Tensor]:
        """Return the share of rows that left at each exit since training began, and their mean normalised cost."""
        counts = self.exits.counts
        shares = counts / max(int(counts.sum()), 1)
        named = dict(zip((f"acting/{name}" for name in self.exits.names), shares, strict=True))
        named |= {"acting/cost": self.exits.cost_of(counts)} if counts.any() else {}
        named |= {"acting/gap": self.teacher.gap} if self.meets_budget else {}
        return {name: torch.tensor(float(value)) for name, value in named.items()}

    def replay_shares(self) -> dict[str, Tensor]:
        """Return the share of the replay's transitions that each exit chose; the rest were random."""
        if self.replay.acted_by is None:
            return {}
        held = self.replay.acted_by[: self.replay.size]
        rows = torch.bincount(held[held >= 0].long(), minlength=len(self.exits.names))
        return {f"replay/{name}": rows[number] / len(held) for number, name in enumerate(self.exits.names)}

    def spending(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return the mean normalised cost of a step and, where one is set, the budget it is to keep."""
        if not shares:
            return {}
        cost = self.exits.cost_of(np.array([shares.get(name, 0.0) for name in self.exits.names]))
        return {"cost": cost} | ({"budget": self.teacher.budget} if self.meets_budget else {})

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

    def begin_actor_update(self) -> None:
        """Count an update of what acts, and settle whether its gates learn."""
        self._gates_due = self._actor_updates % self.config.gate_interval == 0
        self._actor_updates += 1
        self._taught = False

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

    def exit_policy(self) -> ExitPolicy:
        """Return the exits as sub-policies that act deterministically, for ``EarlyExitAction``; no gate is asked."""
        at = NumpyExits(self.actor).at if self.device.type == "cpu" else None
        return ExitPolicy(
            self.actor, lambda output: self.to_env_action(self.certain_action(output[None]))[0], self.to_array, at
        )

    def certain_action(self, output: np.ndarray) -> np.ndarray:
        """Return the deterministic actions, as the replay stores them, of what one exit says of rows ``(n, outputs)``.

        Each agent with exits has its own.
        """
        raise NotImplementedError

    def _start_metering(self) -> None:
        # Not watched: what acts is the engine in ``exits``, which charges by exit.
        self.exits = ExitForward(self.actor, self.meter, self.config.acting)
        self.flops_per_action = max(self.exits.flops)


def exits_of(observation_size: int, outputs: int, config: Any) -> EarlyExitNetwork:
    """Return a network with the exits of ``config``, each of which says ``outputs`` numbers."""
    read = config.budget_from_observation
    return EarlyExitNetwork(observation_size, outputs, config.net_arch, config.depths, config.activation, read)


class ExitActorCritic(ExitAgent):
    """The same for agents with critics of their own."""

    def build(self) -> None:
        """Make the agent's parts, the critics' optimizer at their own rate."""
        super().build()
        self.critic_optimizer = FusedAdam(self.critic.parameters(), **self.config.critic_rate)
