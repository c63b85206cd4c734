"""Learning which units a network needs, and removing the others while it trains: for any torch module in any loop.

Source: "Online Training and Pruning of Deep Reinforcement Learning Networks" (XiNet), with a size that is asked for in
the place of a penalty: the penalty's weight ν follows by dual ascent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from budget_wrappers.arguments import a_count, a_number, an_instance, refuse
from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.functional.complexity import Size
from budget_wrappers.functional.multipliers import log_ascent
from budget_wrappers.functional.units import keep_within, require_probabilities
from budget_wrappers.metering.device_profile import DeviceProfile
from budget_wrappers.modules.surgery import Kept, merged, remove_units
from budget_wrappers.modules.unit_groups import UnitGroup, unit_groups
from budget_wrappers.modules.unit_size import NetworkSize
from budget_wrappers.modules.units import UnitGates

Stage = Literal["untouched", "learning", "fixed"]
LEAST_PENALTY, MOST_PENALTY = 1e-12, 1e3
"""Between which ν stays while it follows a size."""


@dataclass(frozen=True)
class SizeLimit:
    """A size that a network may have in the end.

    Attributes:
        most: of ``unit``.
        unit: what is counted, for messages.
        cost: of a network whose groups have the numbers of units it is given, whole, expected or tensors.
    """

    most: float
    unit: str
    cost: Callable[[Sequence[Size]], Size]


@dataclass(frozen=True)
class UnitSchedule:
    """When θ learn, in shares of a run, and when units are removed.

    Attributes:
        start: share of the run before which θ are 1 and fixed.
        end: share from which each θ is 0 or 1 and fixed.
        threshold: units of a smaller θ are removed.
        prune_every: updates between two removals.
        reached: share of the time in between at which the expected size is to be the one asked for; before it falls
            geometrically.
        pace: how fast ν follows: the change of log ν in the whole time for an expected size that is e times too large.

    Raises:
        ConfigError: shares that do not ascend in [0, 1], a threshold outside (0, ½], no updates between removals.
    """

    start: float = 0.2
    end: float = 0.8
    threshold: float = 0.1
    prune_every: int = 1_000
    reached: float = 0.8
    pace: float = 200.0

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            a_number(name, getattr(self, name), "a share of the run")
        if not 0 <= self.start < self.end <= 1:
            refuse("start, end", (self.start, self.end), "shares of the run, ascending in [0, 1]")
        a_number("threshold", self.threshold, "a probability in (0, 0.5]", lambda number: 0 < number <= 0.5)
        a_count("prune_every", self.prune_every, 1)
        a_number("reached", self.reached, "a share in (0, 1]", lambda number: 0 < number <= 1)
        a_number("pace", self.pace, "a number above 0", lambda number: number > 0)


class UnitPruner:
    """The units of one network: θ, the price of its size, removals, and the networks that follow it.

    It steps nothing: whoever trains the network adds ``penalty`` to its loss (or ``slopes`` to the gradients of θ),
    steps θ, and calls ``advance`` after each update.

    Args:
        module: whose units learn whether they are needed.
        groups: its units; those of ``targets`` in the same order.
        targets: networks of the same structure that follow this one, each with its groups.
        limit: of the size in the end, ``None`` for none.
        penalty: ν, what one parameter costs in the unit of the loss; with a limit, where it begins.
        schedule: see ``UnitSchedule``.
        alike: numbers of groups that have to keep as many units as each other.
        generator: of the draws.

    Attributes:
        gates: θ of the network.
        target_gates: θ of each target.
        size: of the network, see ``NetworkSize``.
        stage: ``"untouched"``, ``"learning"`` or ``"fixed"``.

    Raises:
        InfeasibleBudgetError: the smallest network is larger than the limit.
        ConfigError: a target of another structure, or a penalty that is not above 0.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[UnitGroup],
        targets: Sequence[Sequence[UnitGroup]] = (),
        limit: Callable[[NetworkSize], SizeLimit] | None = None,
        penalty: float = 1e-7,
        schedule: UnitSchedule | None = None,
        alike: Sequence[Sequence[int]] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        an_instance("module", module, nn.Module, "a torch.nn.Module")
        a_number("penalty", penalty, "a price above 0", lambda number: number > 0)
        self.gates = UnitGates(groups, generator)
        self.target_gates = tuple(UnitGates(own) for own in targets)
        for own in self.target_gates:
            if own.counts() != self.gates.counts():
                raise ConfigError(
                    f"a target whose layers have {own.counts()} units: expected {self.gates.counts()}, as the network"
                )
        if not isinstance(alike, list | tuple) or not all(isinstance(one, list | tuple) for one in alike):
            refuse("alike", alike, "lists of numbers of groups")
        self.size, self.alike = NetworkSize(module, self.gates.groups), tuple(map(tuple, alike))
        keep_within(self.gates.theta, self.size.parameters, None, 1, 0.5, self.alike)  # raises for other layers
        self.limit = None if limit is None else limit(self.size)
        self.schedule, self.stage = schedule or UnitSchedule(), "untouched"
        self.log_penalty = math.log(penalty)
        self._share = 0.0
        self._first = float(self.cost(self.gates.counts()))
        self.require_feasible()

    def cost(self, counts: Sequence[Size]) -> Size:
        """Return what is limited: parameters where there is no limit."""
        return self.size.parameters(counts) if self.limit is None else self.limit.cost(counts)

    def require_feasible(self) -> None:
        """Raise unless the smallest network is within the limit.

        Raises:
            InfeasibleBudgetError: with its size.
        """
        if self.limit is None:
            return
        smallest = self.limit.cost([1] * len(self.gates.groups))
        if smallest > self.limit.most:
            raise InfeasibleBudgetError(
                f"{self.limit.most:,.6g} {self.limit.unit}: expected {smallest:,.6g} at least, the smallest network of "
                f"{len(self.gates.groups)} hidden layers, which has one unit in each; ask for more, or make it with "
                "fewer layers"
            )

    # ---- what a loss is told ----------------------------------------------------------------------------------------

    @property
    def penalty_weight(self) -> float:
        """ν now."""
        return math.exp(self.log_penalty)

    def penalty(self) -> Tensor:
        """Return ``ν·C(θ)``, what the expected size costs, differentiable in θ."""
        return self.penalty_weight * self.cost(self.gates.expected())

    def slopes(self) -> list[Tensor]:
        """Return the derivative of ``penalty`` with respect to each θ, ``(units,)``, without autograd.

        All units of a group have the same. The size is multilinear, so that one unit more costs the slope exactly.
        """
        counts, weight = [float(theta.detach().sum()) for theta in self.gates.theta], self.penalty_weight
        here, found = self.cost(counts), []
        for number, theta in enumerate(self.gates.theta):
            more = [*counts[:number], counts[number] + 1.0, *counts[number + 1 :]]
            found.append(torch.full_like(theta, weight * float(self.cost(more) - here), requires_grad=False))
        return found

    @torch.no_grad()
    def expected_cost(self) -> float:
        """Return the expected size."""
        return float(self.cost(self.gates.expected()))

    # ---- over a run -------------------------------------------------------------------------------------------------

    def enter(self, stage: Stage) -> None:
        """Put gates on or take them off, as a stage has them; learning begins and ends here."""
        self.stage = stage
        for gates in (self.gates, *self.target_gates):
            if stage == "learning":
                gates.attach()
            else:
                gates.detach()
        self.gates.learn(stage == "learning")

    def advance(self, progress: float, updates: int) -> Kept | None:
        """Do what is due after an update, and return what is left of each parameter if units were removed.

        Args:
            progress: share of the run that is over.
            updates: taken so far.

        Returns:
            ``None`` where nothing has changed; whoever holds moments, averages or costs has to follow else.
        """
        plan = self.schedule
        if self.stage == "untouched" and progress >= plan.start:
            self.enter("learning")
            self._share = 0.0
            if progress < plan.end:
                return {}
        if self.stage != "learning":
            return None
        if progress >= plan.end:
            return self.fix()
        self.follow_size(progress)
        return self.prune() if updates % plan.prune_every == 0 else None

    def follow_size(self, progress: float) -> None:
        """Let ν follow the size that is asked for, by as much as the run has gone on since; ``advance`` does so, too.

        Args:
            progress: share of the run that is over.
        """
        if self.limit is None:
            return
        share = (progress - self.schedule.start) / (self.schedule.end - self.schedule.start)
        fallen = min(share / self.schedule.reached, 1.0)
        log_target = (1.0 - fallen) * math.log(self._first) + fallen * math.log(self.limit.most)
        log_target = min(log_target, math.log(self._first))
        violation = math.log(max(self.expected_cost(), 1e-9)) - log_target
        rate = self.schedule.pace * max(share - self._share, 0.0)
        bounds = math.log(LEAST_PENALTY), math.log(MOST_PENALTY)
        self.log_penalty = log_ascent(self.log_penalty, violation, rate, *bounds)
        self._share = share

    def follow_targets(self, tau: float) -> None:
        """Let the targets' θ move as their weights do, ``θ̄ ← (1 − τ)·θ̄ + τ·θ``."""
        for gates in self.target_gates:
            for own, theta in zip(gates.theta, self.gates.theta, strict=True):
                own.data.lerp_(theta.detach(), tau)

    # ---- removals ---------------------------------------------------------------------------------------------------

    def prune(self) -> Kept | None:
        """Remove the units whose θ is below the threshold; each layer keeps its best.

        Where a size is asked for, no more go than it asks for: what is removed never comes back, and θ of units that
        stay may still rise.
        """
        floor = 0.0 if self.limit is None else self.limit.most
        threshold = self.schedule.threshold
        return self.keep(keep_within(self.gates.theta, self.cost, None, 1, threshold, self.alike, floor))

    def fix(self) -> Kept:
        """Make each θ 0 or 1, remove the units of 0, and take the gates off.

        With a price alone θ are rounded. Where a size is asked for, the size says how many stay: those of the largest
        θ, as many as it allows, but none below the threshold.
        """
        most, threshold = (None, 0.5) if self.limit is None else (self.limit.most, self.schedule.threshold)
        kept = self.keep(keep_within(self.gates.theta, self.cost, most, 1, threshold, self.alike))
        for gates in (self.gates, *self.target_gates):
            for theta in gates.theta:
                theta.data.fill_(1.0)
        self.enter("fixed")
        return kept or {}

    def keep(self, keep: Sequence[Tensor]) -> Kept | None:
        """Keep the units of these indices, in the network and its targets; ``None`` where all of them stay."""
        if all(len(index) == group.units for index, group in zip(keep, self.gates.groups, strict=True)):
            return None
        found: list[Kept] = []
        for gates in (self.gates, *self.target_gates):
            chosen = dict(zip(gates.groups, keep, strict=True))
            beside = {group: [theta] for group, theta in zip(gates.groups, gates.theta, strict=True)}
            found.append(remove_units(chosen, beside))
            gates.follow()
        return merged(*found)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return stage and price as plain data; θ are in the gates."""
        return {"stage": self.stage, "log_penalty": self.log_penalty, "share": self._share, "first": self._first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` returned, θ and sizes having been put in.

        Raises:
            ConfigError: it is something else, or θ are no probabilities; nothing has changed then.
        """
        for gates in (self.gates, *self.target_gates):
            for theta in gates.theta:
                require_probabilities(theta.detach())
        bounds = {"log_penalty": (-700.0, 700.0), "share": (0.0, 1.0), "first": (1e-9, 1e18)}
        numbers = isinstance(state, Mapping) and all(
            isinstance(state.get(key), int | float) and low <= state[key] <= high for key, (low, high) in bounds.items()
        )
        if not numbers or state.get("stage") not in get_args(Stage):
            raise ConfigError(
                f"the state {str(state)[:200]} is not that of units: expected a stage of {', '.join(get_args(Stage))}, "
                f"and {', '.join(f'{key} in [{low:g}, {high:g}]' for key, (low, high) in bounds.items())}"
            )
        self.log_penalty, self._share = float(state["log_penalty"]), float(state["share"])
        self._first = float(state["first"])
        self.enter(state["stage"])


def parameters_at_most(most: float) -> Callable[[NetworkSize], SizeLimit]:
    """Return the limit of at most ``most`` parameters, biases included."""
    return lambda size: SizeLimit(most, "parameters", size.parameters)


def flops_at_most(most: float) -> Callable[[NetworkSize], SizeLimit]:
    """Return the limit of at most ``most`` FLOPs for one row, ``matmul`` convention."""
    return lambda size: SizeLimit(most, "FLOPs", size.flops)


def microseconds_at_most(most: float, device: DeviceProfile) -> Callable[[NetworkSize], SizeLimit]:
    """Return the limit of at most ``most`` microseconds for one row by the fit of a device."""
    return lambda size: SizeLimit(
        most, "microseconds", lambda counts: max(device.microseconds(way) for way in size.layers(counts))
    )


__all__ = [
    "SizeLimit",
    "UnitPruner",
    "UnitSchedule",
    "flops_at_most",
    "microseconds_at_most",
    "parameters_at_most",
    "unit_groups",
]
