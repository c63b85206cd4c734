"""Teaching the gates of an early-exit network what to open for: exits' values in, a loss of the gates out.

Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks". ``B`` states, ``K`` exits.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from budget_wrappers.arguments import a_number
from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.functional.budget_lp import require_finite_values, solve_batch_lp, solve_exit_lp
from budget_wrappers.functional.costs import exit_costs
from budget_wrappers.functional.gates import (
    GateLoss,
    choice_information,
    first_good_enough,
    gate_losses,
    mixture_weights,
    one_hot,
    softmax_mixture,
)

GateTraining = Literal["budget", "batch_budget", "advantage", "softmax", "greedy", "fraction"]
"""What decides which exits a state should use: ``"budget"``, the program of every state by itself, as published;
``"batch_budget"``, one program over the batch; ``"advantage"``, the earliest exit worth at least the last;
``"softmax"`` of the values; ``"greedy"``, the best exit whatever it costs; ``"fraction"``, the earliest exit worth at
least a fixed fraction of a running reference, as RAPID-RL has it: comparing with the state's own last exit while acting
would cost the full forward pass."""
REFERENCE_STEP = 0.01
"""Share of a batch in the running reference of ``"fraction"``."""
GAP_STEP = 1e-3
"""Share of the latest actions in the moving average of what acting cost beyond the budget."""


class GateTeacher:
    """Turns the values of exits into targets for gates, and the distance to them into a loss.

    Args:
        flops: of acting that leaves at each exit, ``(K,)``; the budget is in units of ``exit_costs`` of them.
        budget: b, mean cost a state, 0 for the cheapest exit only and 1 for any.
        training: see ``GateTraining``.
        loss: see ``budget_wrappers.functional.gates.GateLoss``.
        temperature: of ``"softmax"``.
        fraction: of ``"fraction"``.
        feedback: step by which the budget of the programs is corrected for what acting cost, see ``observe``; 0 leaves
            it as it is.

    Attributes:
        costs: normalised, 0 for the cheapest exit and 1 for the dearest, ``(K,)``.
        correction: added to the budget of the programs by now.
        gap: moving average of what acting cost beyond the budget.
        reference: moving average of the last exit's value, ``None`` before the first batch, of ``"fraction"``.

    Raises:
        InfeasibleBudgetError: a budget below 0 or NaN.
        CostError: exits that all cost the same.
        ConfigError: an unknown training or loss; a temperature, fraction or feedback out of bounds; a budget that is
            infinite or no number.
    """

    def __init__(
        self,
        flops: ArrayLike,
        budget: float,
        training: GateTraining = "budget",
        loss: GateLoss = "per_gate",
        temperature: float = 1.0,
        fraction: float = 0.9,
        feedback: float = 0.0,
    ) -> None:
        self.costs: tuple[float, ...]
        self.set_flops(flops)
        if not isinstance(training, str) or training not in GateTraining.__args__:
            raise ConfigError(f"gate_training={training!r}: expected one of {', '.join(GateTraining.__args__)}")
        if not isinstance(loss, str) or loss not in GateLoss.__args__:
            raise ConfigError(f"gate_loss={loss!r}: expected one of {', '.join(GateLoss.__args__)}")
        a_number("gate_temperature", temperature, "a number above 0, such as 1", lambda number: number > 0)
        a_number("gate_fraction", fraction, "a fraction in [0, 1]", lambda number: 0 <= number <= 1)
        a_number("budget_feedback", feedback, "a step of 0 or more", lambda number: number >= 0)
        self.training, self.kind, self.temperature, self.fraction = training, loss, temperature, fraction
        self.feedback, self.correction, self.gap = feedback, 0.0, 0.0
        self.reference: float | None = None
        self.budget = checked_budget(budget)

    def set_budget(self, budget: float) -> None:
        """Aim at ``budget`` from the next call on; what was found out about another one is forgotten.

        Raises:
            InfeasibleBudgetError: below 0, the cost of the cheapest exit, or NaN.
            ConfigError: infinite, which no mean cost can be compared with, or no number.
        """
        given = checked_budget(budget)
        if given != self.budget:
            self.budget, self.correction, self.gap = given, 0.0, 0.0

    def set_flops(self, flops: ArrayLike) -> None:
        """Take other costs of the exits, ``(K,)``: the network's layers have changed size. The budget stays.

        Raises:
            CostError: exits that all cost the same.
        """
        self.costs = tuple(exit_costs(flops).tolist())
        self._cost_row = torch.tensor(self.costs)

    @property
    def aim(self) -> float:
        """Budget of the programs: b and its correction, within [0, 1]."""
        return min(max(self.budget + self.correction, 0.0), 1.0) if self.correction else self.budget

    @property
    def affordable(self) -> int:
        """Number of exits that the programs' budget can pay alone: it decides how many mixtures they compare."""
        limit = float(np.float32(self.aim))  # as the programs round
        return sum(cost <= limit for cost in self._cost_row.tolist())

    def observe(self, cost: float, actions: int = 1) -> None:
        """Note what ``actions`` taken just now cost in the mean, in the unit of the budget.

        Programs hold on the states of a replay and for gates that follow them to the letter; acting visits other
        states with gates that are fitted. With ``feedback`` the budget of the programs falls by ``feedback`` times
        what each action cost too much, and rises by what it left: an integral controller.
        """
        beyond = cost - self.budget
        self.gap += (GAP_STEP if actions == 1 else 1.0 - (1.0 - GAP_STEP) ** actions) * (beyond - self.gap)
        # No more than all of what many cost too much: the programs do not answer before the next update.
        gain = max(self.feedback, min(self.feedback * actions, 1.0))
        # Held where the aim is at an end of [0, 1]: what cannot be corrected does not pile up.
        low, high = -self.budget, max(1.0 - self.budget, 0.0)
        self.correction = min(max(self.correction - gain * beyond, low), high)

    def target(self, values: Tensor, budget: Tensor | None = None, again: bool = False) -> Tensor:
        """Return α, the share of each exit that every state should have, ``(B, K)``.

        Args:
            values: of the exits, ``(B, K)``.
            budget: of each state, ``(B,)``, where it is not the same for all.
            again: whether ``reference`` has seen these states already, and stays where it is.

        Raises:
            NonFiniteError: a value is NaN or infinite.
            ConfigError: several budgets for one program over the batch.
        """
        if self.training == "budget":
            return solve_exit_lp(values, self.costs, self.aim if budget is None else budget)
        if self.training == "batch_budget":
            if budget is not None:
                raise ConfigError(
                    "gate_training='batch_budget' with a budget for each state: expected 'budget', as one program over "
                    "the batch would spend the share of states with little where there is much"
                )
            return solve_batch_lp(values, self.costs, self.aim)[0]
        require_finite_values(values, values)  # the programs have looked already
        if self.training == "advantage":
            return first_good_enough(values, values[:, -1:])
        if self.training == "softmax":
            return softmax_mixture(values, self.temperature)
        if self.training == "fraction":
            return first_good_enough(values, self._threshold(values, again))
        return one_hot(values.argmax(1), values.shape[1], values)

    def _threshold(self, values: Tensor, again: bool) -> Tensor:
        """Follow the last exit's mean value and return ``reference − (1 − fraction)·|reference|``."""
        if self.reference is None or not again:
            last = float(values[:, -1].mean())
            before = last if self.reference is None else self.reference
            self.reference = before + REFERENCE_STEP * (last - before)
        return values.new_tensor(self.reference - (1.0 - self.fraction) * abs(self.reference))

    def losses(self, logits: Tensor, values: Tensor, budget: Tensor | None = None, again: bool = False) -> Tensor:
        """Return each gate's loss, ``(K − 1,)``; no gradient reaches ``values``.

        Args:
            logits: of the gates, ``(B, K − 1)``.
            values: of the exits, ``(B, K)``.
            budget: see ``target``.
            again: see ``target``.
        """
        return gate_losses(logits, self.target(values.detach(), budget, again), self.kind)

    @torch.no_grad()
    def expected_cost(self, logits: Tensor) -> Tensor:
        """Return the mean cost of acting with these gates, a scalar to compare with the budget."""
        return (made_mixture(logits) @ self._cost_row.to(logits)).mean()


def made_mixture(logits: Tensor) -> Tensor:
    """Return α, the mixture of exits that gates of these ``logits`` ``(B, K − 1)`` make, ``(B, K)``."""
    last = logits.new_ones(len(logits), 1)
    return mixture_weights(torch.cat([torch.sigmoid(logits), last], 1))


@torch.no_grad()
def gate_information(logits: Tensor) -> Tensor:
    """Return how much these gates look at the state, a scalar in nats; see ``choice_information``.

    Args:
        logits: of the gates, ``(B, K − 1)``.
    """
    return choice_information(made_mixture(logits))


def checked_budget(budget: Any) -> float:
    """Return ``budget`` as a plain number.

    Raises:
        InfeasibleBudgetError: below 0, the cost of the cheapest exit, or NaN.
        ConfigError: infinite, or no number.
    """
    if isinstance(budget, bool) or not isinstance(budget, int | float | np.integer | np.floating):
        raise ConfigError(f"budget={budget!r}: expected one number, 0 or more; pass float(…) of what holds one")
    if not budget >= 0:
        raise InfeasibleBudgetError(
            f"budget={budget!r} is below 0, the cost of the cheapest exit: expected a number from 0 (the cheapest "
            "exit only) to 1 (the dearest whenever it pays)"
        )
    if budget == math.inf:
        raise ConfigError(f"budget={budget!r}: expected a finite number; pass 1 for the dearest whenever it pays")
    return a_number("budget", budget)


__all__ = ["GateTeacher", "GateTraining", "gate_information"]
