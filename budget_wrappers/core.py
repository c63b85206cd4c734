"""The vocabulary of the package: frozen records, and the protocols that its parts meet each other by.

Nothing here computes. ``K`` is the number of sub-policies, ``B`` a batch size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Convention = Literal["matmul", "all"]
"""``"matmul"``: 2 FLOPs per multiply-accumulate of matrix products and convolutions, and the leading term of matrix
factorisations, solvers, eigenvalue problems and Fourier transforms; nothing else.
``"all"``: biases, activations and normalisation as well."""

Unknown = Literal["raise", "warn"]
"""What a counter does at an operator that nothing is known about: refuse it, or count 0 and warn once."""

Phase = Literal["act", "learn"]

Fallback = Literal["cheapest", "hold"]
"""What runs in place of a choice that is not affordable: the cheapest one, or the last primitive action again."""

Allowance = Callable[[int], int]
"""Maps the control steps that a choice would last to the FLOPs that it may spend."""


@dataclass(frozen=True)
class Cost:
    """What one action of one sub-policy costs.

    Attributes:
        flops: FLOPs of one observation, at most.
        convention: what ``flops`` counts.
    """

    flops: int
    convention: Convention = "matmul"


@dataclass(frozen=True)
class Spend:
    """What a meter has counted between two moments, in FLOPs of one convention.

    Attributes:
        executed: FLOPs that ran while acting.
        charged: FLOPs that a budget pays; below ``executed`` only where an action was computed and not used.
        learned: FLOPs that ran while learning, forward and backward.
        rows: observations that were acted on.
        by_name: acting FLOPs of each watched module or named charge.
    """

    executed: int = 0
    charged: int = 0
    learned: int = 0
    rows: int = 0
    by_name: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """One decision of a selector.

    Attributes:
        index: the sub-policy picked, ``0 <= index < K``, cheapest first.
        flops: what picking cost, in FLOPs (0 for a rule).
        duration: control steps for which the choice holds; one of those that the wrapper offers.
    """

    index: int
    flops: int = 0
    duration: int = 1


@runtime_checkable
class SubPolicy(Protocol):
    """Anything that maps one observation to one action at a known cost.

    Attributes:
        name: unique among its siblings; metering reports it.
        flops: FLOPs of one call at most, in the ``matmul`` convention unless it has an attribute ``convention``, which
            has to be that of the meter that pays.

    One that keeps a memory in itself has ``reset()``, which whoever chooses calls as an episode begins.
    """

    name: str
    flops: int

    def __call__(self, observation: Any) -> Any:
        """Return the action (one, without a batch dimension) for ``observation``."""
        ...


@runtime_checkable
class BatchSubPolicy(SubPolicy, Protocol):
    """A sub-policy that may act on several observations at once: vector wrappers hand it all rows that chose it.

    Attributes:
        batched: whether it can; where it cannot, it is called with one after the other.
    """

    batched: bool

    def batch(self, observations: Sequence[Any]) -> Sequence[Any]:
        """Return an action for each of ``observations``, at the cost of as many calls."""
        ...


@runtime_checkable
class RecurrentSubPolicy(SubPolicy, Protocol):
    """A sub-policy that hands its memory back, so that whoever chooses keeps one for each environment's episode."""

    def act_with_memory(self, observation: Any, memory: Any) -> tuple[Any, Any]:
        """Return the action for ``observation`` and the memory after it; ``memory`` is None as an episode begins."""
        ...


@runtime_checkable
class Selector(Protocol):
    """Picks a sub-policy for an observation: ``SubPolicyAction(…, selector=…)`` asks it at ``step(None)``.

    One whose choices cost FLOPs has an attribute ``flops``, the most that one choice costs, and ``convention`` where
    that is not ``"matmul"``. One with a memory has ``reset()``, which is called before its first choice in an episode.
    """

    def __call__(self, observation: Any) -> Choice:
        """Return the choice for ``observation``."""
        ...


@runtime_checkable
class Meter(Protocol):
    """The account that policies charge and wrappers read."""

    name: str

    def add(self, flops: int, name: str | None = None) -> None:
        """Charge ``flops`` of acting."""
        ...

    def take(self) -> Spend:
        """Return what was spent since the last take and start anew."""
        ...


@runtime_checkable
class Chooser(Protocol):
    """An environment wrapper that runs one of K sub-policies inside its ``step``.

    ``ComputeLimit`` finds one by ``env.get_wrapper_attr`` through any nesting, and is hard over it.

    Attributes:
        choice_flops: shape ``(K,)``, int64: FLOPs of ONE primitive control step of each choice, at most.
        selector_flops: FLOPs that making one choice costs at most, outside the wrapper or by a selector inside.
        durations: control steps that a choice can last at most, ascending; one number where that is not chosen.
    """

    choice_flops: np.ndarray
    selector_flops: int
    durations: tuple[int, ...]

    def restrict(self, allowance: Allowance, steps: int | None = None, fallback: Fallback = "cheapest") -> None:
        """Let sub-policies spend at most ``allowance`` until the next call, and one choice last at most ``steps``.

        A choice that does not fit is never run: the cheapest takes its place, for as long as was asked or else for the
        longest duration that fits, or (``fallback="hold"``, or where even the cheapest does not fit) the last
        primitive action is repeated. A reset lifts the restriction.
        """
        ...

    def hold_last_action(self, steps: int) -> None:
        """Make the next ``step`` repeat the last primitive action for ``steps`` steps, running no sub-policy."""
        ...


__all__ = [
    "Allowance",
    "BatchSubPolicy",
    "Choice",
    "Chooser",
    "Convention",
    "Cost",
    "Fallback",
    "Meter",
    "Phase",
    "RecurrentSubPolicy",
    "Selector",
    "Spend",
    "SubPolicy",
]
