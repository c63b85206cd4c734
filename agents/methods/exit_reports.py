"""What early exits log and what a checkpoint keeps of them: who acted, at what cost, and what the gates would spend."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.loop.method import Method, answer
from agents.loop.spaces import NoEnvironment
from agents.methods.budget_input import budget_wrapper, require_budget_count
from agents.methods.exits_config import ExitsConfig
from budget_wrappers.arguments import a_number
from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.selection.gates import GateTeacher, gate_information

BUDGETED = ("budget", "batch_budget")
"""Gate trainings that know a budget."""
TEACHER = ("budget", "reference", "correction", "gap")
"""What a checkpoint holds of the gates' teacher."""


class ExitReports(Method):
    """Base of ``Exits``: its accounts and its state.

    Args:
        settings: keys of ``ExitsConfig``.
    """

    config: ExitsConfig
    teacher: GateTeacher
    exits: ExitForward

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.begin()

    def begin(self) -> None:
        """Forget what an agent has made of the method: it begins with another one."""
        self.gate_metrics: dict[str, Tensor] = {}
        self.actor_updates = 0
        self._logits: Tensor | None = None
        self._expected_cost: Tensor | None = None
        self._information: Tensor | None = None
        self._kept_budget: Any = None

    @property
    def meets_budget(self) -> bool:
        """Whether acting is to cost one budget in the mean."""
        config = self.config
        one = config.gate_training in BUDGETED and not config.budget_from_observation
        return one and config.acting == "early_exit"

    @answer
    def given_budget(self, agent: Any) -> float | list[float | None] | None:
        """What the wrapper that writes budgets into observations was given, by whomever; ``None`` where it draws them.

        Without an environment it is what the checkpoint says.
        """
        if not self.config.budget_from_observation:
            return None
        wrapper = budget_wrapper(agent.env)
        return self._kept_budget if wrapper is None else wrapper.given_budget

    def acting_counts(self, agent: Any) -> list[np.ndarray]:
        """Return the rows that acted through each exit."""
        return [self.exits.counts]

    def expected_cost(self) -> Tensor | None:
        """Return what the gates of the last batch would cost, ``None`` before one; computed only where it is read."""
        return self._expected_cost if self._logits is None else self.teacher.expected_cost(self._logits)

    def information(self) -> Tensor | None:
        """Return how much the gates of the last batch look at the state, in nats; ``None`` before one.

        0 is a coin that does not look; see ``choice_information``. Computed only where it is read.
        """
        return self._information if self._logits is None else gate_information(self._logits)

    def metrics(self, agent: Any) -> Mapping[str, Tensor]:
        """Return the gates' loss in the last update in which they learned."""
        return self.gate_metrics

    def logged(self, agent: Any) -> Mapping[str, Tensor]:
        """Return what the gates of the last batch would cost and how much they look at the state; the exits' shares."""
        gates = {"gate/expected_cost": self.expected_cost(), "gate/information": self.information()}
        named = {name: value for name, value in gates.items() if value is not None}
        return {**named, **self.exit_shares(), **self.replay_shares(agent)}

    def exit_shares(self) -> dict[str, Tensor]:
        """Return the share of rows that left at each exit since training began, and their mean normalised cost."""
        counts = self.exits.counts
        shares = counts / max(int(counts.sum()), 1)
        named = dict(zip((f"acting/{name}" for name in self.exits.names), shares, strict=True))
        named |= {"acting/cost": self.exits.cost_of(counts)} if counts.any() else {}
        named |= {"acting/gap": self.teacher.gap} if self.meets_budget else {}
        return {name: torch.tensor(float(value)) for name, value in named.items()}

    def replay_shares(self, agent: Any) -> dict[str, Tensor]:
        """Return the share of the replay's transitions that each exit chose; the rest were random, or another's."""
        if agent.replay.acted_by is None:
            return {}
        held, names = agent.replay.acted_by[: agent.replay.size].long() - agent.acting_offset, self.exits.names
        rows = torch.bincount(held[(held >= 0) & (held < len(names))], minlength=len(names))
        return {f"replay/{name}": rows[number] / len(held) for number, name in enumerate(names)}

    def spending(self, agent: Any, shares: Mapping[str, float]) -> dict[str, float]:
        """Return the mean normalised cost of a step and, where one is set, the budget it is to keep."""
        if not shares:
            return {}
        cost = self.exits.cost_of(np.array([shares.get(name, 0.0) for name in self.exits.names]))
        return {"cost": cost} | ({"budget": self.teacher.budget} if self.meets_budget else {})

    def plain_state(self, agent: Any) -> dict[str, Any]:
        """Return the budget, what its teacher has found out, and who has acted."""
        teacher = {name: getattr(self.teacher, name) for name in TEACHER}
        expected, information = self.expected_cost(), self.information()
        return {
            "teacher": teacher,
            "counts": self.exits.counts.tolist(),
            "actor_updates": self.actor_updates,
            "given_budget": agent.given_budget,
            "expected_cost": None if expected is None else float(expected),
            "information": None if information is None else float(information),
        }

    def load_plain_state(self, agent: Any, state: Mapping[str, Any]) -> None:
        """Take back what ``plain_state`` returned."""
        for name in TEACHER:
            setattr(self.teacher, name, state["teacher"][name])
        self.exits.counts[:] = state["counts"]
        self.actor_updates = state["actor_updates"]
        # Neither is in files of earlier versions, and both are none before the first update.
        known = {key: state[key] for key in ("expected_cost", "information") if state.get(key) is not None}
        known = {key: torch.tensor(a_number(key, value)) for key, value in known.items()}
        self._logits, self._expected_cost, self._information = (
            None,
            known.get("expected_cost"),
            known.get("information"),
        )
        self._kept_budget = given = state["given_budget"]
        if given is not None and not isinstance(agent.env, NoEnvironment):
            require_budget_count(agent.env, given)
            budget_wrapper(agent.env).set_budget(given)
