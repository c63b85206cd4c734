"""The selector that a wrapper over sub-policies asks at ``step(None)``: what it may be, say and cost."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

from budget_wrappers.core import Choice, Selector
from budget_wrappers.errors import ConfigError, CostError, SpaceError
from budget_wrappers.functional.costs import validate_flops, whole
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.adapters import reset_of
from budget_wrappers.policies.options import load_registered

NAME = "selector"
"""Under which its FLOPs are charged; no sub-policy may be called so."""


class InnerSelector:
    """A selector, as the wrapper asks it that holds it; without one, a question raises.

    A deep copy asks the very same selector, as a copy of ``SubPolicies`` has the very same sub-policies.

    Args:
        given: the selector, a name that ``register_sub_policy`` or ``register_loader`` knows, or None for none.
        names: of the sub-policies, cheapest first.
        durations: control steps that a choice may last, ascending.
        environments: that it chooses for.
        flops: the most that one choice costs; None for what the selector declares in its attribute ``flops``, 0 where
            it has none.

    Attributes:
        selector: the object, or None.
        flops: the most that one choice costs.
        spent: FLOPs of the last choice; ``flops`` where it has raised before it said what it cost.

    Raises:
        ConfigError: ``given`` is no selector, or keeps a memory that several environments would share.
        CostError: ``flops`` is negative, not whole, or less than the selector declares.
    """

    def __init__(
        self,
        given: Selector | str | None,
        names: Sequence[str],
        durations: tuple[int, ...],
        environments: int = 1,
        flops: int | None = None,
    ) -> None:
        self.selector = load_registered(given) if isinstance(given, str) else given
        self._require_callable(given)
        self._names, self._durations = tuple(names), durations
        self._reset = self._own_reset()
        if self._reset is not None and environments > 1:
            raise ConfigError(
                f"selector={self.selector!r} has a reset(), so it keeps a memory, and {environments} environments "
                "would share it; expected a selector without one, or the wrapper for single environments around each "
                "one, with a selector of its own."
            )
        self._begins, self.spent = True, 0
        self.set_flops(flops)

    def set_flops(self, flops: int | None) -> None:
        """Declare the most that one choice costs; None for what the selector declares.

        Raises:
            CostError: it is negative, not whole, or less than the selector declares.
        """
        declared = whole(getattr(self.selector, "flops", 0), f"flops of selector {self.selector!r}")
        self.flops = declared if flops is None else int(validate_flops([flops], "selector_flops")[0])
        if self.flops < declared:
            raise CostError(
                f"selector_flops={self.flops} is below the {declared} that selector={self.selector!r} declares; "
                "expected the most that one choice costs. Leave selector_flops out to take what the selector declares."
            )

    def require_convention(self, meter: ComputeMeter) -> None:
        """Check that a selector that costs anything counts as ``meter`` does.

        Raises:
            ConfigError: it declares FLOPs of another convention.
        """
        declared = getattr(self.selector, "convention", "matmul" if self.flops else meter.convention)
        if self.selector is not None and declared != meter.convention:
            raise ConfigError(
                f"selector={self.selector!r} declares {self.flops} FLOPs of the convention {declared!r}, and meter "
                f"{meter.name!r} counts {meter.convention!r}; expected one convention in one account. Give the "
                f"selector an attribute convention={meter.convention!r} and its flops counted so, or charge a meter of "
                f"the convention {declared!r}."
            )

    def begin(self) -> None:
        """Note that an episode begins: the selector is told before its next choice."""
        self._begins = True

    def ask(self, observation: Any, meter: ComputeMeter) -> tuple[int, int]:
        """Return the sub-policy and the duration that the selector picks; the caller charges ``spent``.

        Args:
            observation: that the sub-policies see.
            meter: charged with nothing meanwhile, as what the selector says that it cost is charged.

        Raises:
            SpaceError: there is no selector, or what it returned is no ``Choice`` of a sub-policy.
            ConfigError: the choice has a duration that the wrapper does not offer.
            CostError: it cost more than was declared.
        """
        if self.selector is None:
            raise SpaceError(
                "step(None) asks a selector, and this wrapper has none; expected the index of a sub-policy. Pass "
                "selector= to the wrapper, such as selection.fixed(0), or an action."
            )
        self.spent = 0
        with meter.paused():
            if self._begins and self._reset is not None:
                self._reset()
            self._begins = False
            self.spent = self.flops  # of a call that fails, too: it has run
            choice = self.selector(observation)
        return self._checked(choice)

    def _checked(self, choice: Any) -> tuple[int, int]:
        if not isinstance(choice, Choice):
            raise SpaceError(
                f"selector={self.selector!r} returned {choice!r}; expected a budget_wrappers.Choice(index, flops, "
                "duration)."
            )
        self.spent = whole(choice.flops, f"flops of the choice of selector {self.selector!r}")
        if self.spent > self.flops:
            raise CostError(
                f"selector={self.selector!r} ran {self.spent} FLOPs for one choice and {self.flops} are declared: "
                "expected the most that one choice can cost. Give the selector an attribute flops, or the wrapper for "
                "single environments selector_flops=."
            )
        index, duration = choice.index, choice.duration
        if isinstance(index, bool) or not hasattr(index, "__index__") or not 0 <= index < len(self._names):
            raise SpaceError(
                f"selector={self.selector!r} returned the sub-policy {index!r}; expected an index in 0 … "
                f"{len(self._names) - 1}: {', '.join(self._names)}."
            )
        if duration not in self._durations:
            offered = " or ".join(map(str, self._durations))
            raise ConfigError(
                f"selector={self.selector!r} returned a choice with duration={duration!r}, and the wrapper's choices "
                f"last hold={offered}; expected that. Make the selector with duration={self._durations[-1]}, or pass "
                f"hold={duration!r} to the wrapper for single environments."
            )
        return int(index), int(duration)

    def _own_reset(self) -> Callable[[], Any] | None:
        """Return the ``reset`` of a selector that has one."""
        own, usable = getattr(self.selector, "reset", None), reset_of(self.selector, None, NAME)
        if callable(own) and usable is None:
            raise ConfigError(
                f"reset of selector={self.selector!r} takes arguments; expected a function without any, which is "
                "called before the first choice of an episode. Wrap the selector in a function that resets it itself."
            )
        return usable

    def _require_callable(self, given: Any) -> None:
        if self.selector is None and given is None:
            return
        if not callable(self.selector) or isinstance(self.selector, type):
            raise ConfigError(
                f"selector={given!r} is no selector; expected a function from an observation to a "
                "budget_wrappers.Choice, or None. For an agent write one: "
                "lambda observation: Choice(int(agent.predict(observation)[0]), flops)."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return one that asks the same selector and knows by itself where it stands in its own episode."""
        return copy.copy(self)


__all__ = ["NAME", "InnerSelector"]
