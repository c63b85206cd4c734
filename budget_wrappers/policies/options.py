"""Sub-policies: the ordered set of them, and the names that stand for them.

A sub-policy maps ONE observation to ONE action at a declared cost (``core.SubPolicy``).
"""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from budget_wrappers.arguments import a_function, a_text
from budget_wrappers.core import SubPolicy
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.costs import relative_costs, validate_flops
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.adapters import whole_flops

RESERVED_NAMES = frozenset({"selector", "hold"})
"""Names that accounts use for what is not a sub-policy."""

_named: dict[str, Callable[[], Any]] = {}
_loaders: dict[str, Callable[[str], Any]] = {}


class SubPolicies:
    """An unchanging, ordered set of sub-policies: cheapest first, equal costs in the order given.

    It holds references: a deep copy is the set itself, so that an agent goes on training the very objects that act.

    Attributes:
        names: of the sub-policies.
        flops: ``(K,)`` int64, FLOPs of one call of each, in the convention that it declares.
    """

    def __init__(self, sub_policies: Iterable[SubPolicy | str]) -> None:
        """Order ``sub_policies``.

        Args:
            sub_policies: objects with ``name``, ``flops`` and ``__call__``, or names and ``scheme:reference`` strings,
                which are loaded.

        Raises:
            ConfigError: there is none, one is no sub-policy, a name is unknown, taken twice or reserved.
            CostError: a cost is NaN, negative or not whole.
        """
        policies = [
            load_sub_policy(entry) if isinstance(entry, str) else require_sub_policy(entry) for entry in sub_policies
        ]
        if not policies:
            raise ConfigError("No sub-policy was given; expected one at least.")
        for policy in policies:
            whole_flops(policy.flops, policy.name)
        self._policies: tuple[SubPolicy, ...] = tuple(sorted(policies, key=lambda policy: policy.flops))
        self.names = tuple(policy.name for policy in self._policies)
        self.flops: NDArray[np.int64] = validate_flops([policy.flops for policy in self._policies])
        self.flops.flags.writeable = False
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice or RESERVED_NAMES & set(self.names):
            raise ConfigError(
                f"Sub-policies are called {list(self.names)}; expected names that differ, and none of "
                f"{sorted(RESERVED_NAMES)}, as accounts list FLOPs by name. Pass name=; where a path gave the name, "
                "rename the folder or file."
            )

    @classmethod
    def of(cls, given: "SubPolicies | Iterable[SubPolicy | str]") -> "tuple[SubPolicies, SubPolicies | list[str]]":
        """Return a set, and what to record of it in a spec: names as they are, as they serialise, else the set."""
        if isinstance(given, SubPolicies):
            return given, given
        entries = list(given)
        made = cls(entries)
        names = [entry for entry in entries if isinstance(entry, str)]
        return made, names if len(names) == len(entries) else made

    def recount(self) -> None:
        """Take the costs that the sub-policies declare now, after their networks have changed size.

        Raises:
            CostError: a cost is NaN, negative or not whole.
            ConfigError: they are in another order now.
        """
        flops = validate_flops([policy.flops for policy in self._policies])
        if (np.diff(flops) < 0).any():
            raise ConfigError(
                f"Sub-policies {list(self.names)} cost {flops.tolist()} FLOPs now; expected the order in which they "
                "were given, the cheapest first. Ask for a larger size where one is pruned, or make a new set."
            )
        self.flops = flops
        self.flops.flags.writeable = False

    def require_convention(self, meter: ComputeMeter) -> None:
        """Check that what sub-policies declare is what ``meter`` counts, as both go into one account.

        Raises:
            ConfigError: one declares FLOPs of another convention.
        """
        for policy in self._policies:
            declared = getattr(policy, "convention", "matmul")
            if declared != meter.convention:
                raise ConfigError(
                    f"Sub-policy {policy.name!r} declares {policy.flops} FLOPs of the convention {declared!r}, and "
                    f"meter {meter.name!r} counts {meter.convention!r}; expected one convention in one account. Make "
                    f"the sub-policy with convention={meter.convention!r}, its flops= counted so, or charge a meter of "
                    f"the convention {declared!r}."
                )

    @property
    def costs(self) -> NDArray[np.float64]:
        """``(K,)``: FLOPs relative to the cheapest, the unit of an option's weight.

        Raises:
            CostError: the cheapest costs 0.
        """
        return relative_costs(self.flops)

    def __len__(self) -> int:
        """Return K."""
        return len(self._policies)

    def __getitem__(self, index: int) -> SubPolicy:
        """Return one sub-policy; 0 is the cheapest."""
        return self._policies[index]

    def __iter__(self) -> Iterator[SubPolicy]:
        """Iterate from the cheapest to the dearest."""
        return iter(self._policies)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SubPolicies":
        """Return the set itself, see the class."""
        return self

    def __repr__(self) -> str:
        """Return names and costs."""
        listed = ", ".join(f"{name}: {flops}" for name, flops in zip(self.names, self.flops.tolist(), strict=True))
        return f"SubPolicies({listed})"


def register_sub_policy(name: str, factory: Callable[[], Any]) -> None:
    """Make ``name`` a sub-policy, so that plain data (an environment's spec) can name it.

    Args:
        name: without a colon.
        factory: called each time that the name is loaded; what ``EarlyExitAction`` is to load is an ``ExitPolicy``, and
            what ``selector=`` is to load a selector.

    Raises:
        ConfigError: the name is empty, holds a colon or is taken by another factory.
    """
    _register(_named, name, factory, "sub-policy")


def register_loader(scheme: str, loader: Callable[[str], Any]) -> None:
    """Make ``"scheme:reference"`` a sub-policy, or an ``ExitPolicy``: ``loader(reference)`` opens a checkpoint, say.

    Raises:
        ConfigError: the scheme is empty, holds a colon or is taken by another loader.
    """
    _register(_loaders, scheme, loader, "loader")


def load_sub_policy(reference: str) -> SubPolicy:
    """Return the sub-policy that a registered name or ``scheme:reference`` stands for.

    Raises:
        ConfigError: nobody registered it, or what was loaded is no sub-policy.
    """
    return require_sub_policy(load_registered(reference))


def load_registered(reference: str) -> Any:
    """Return what a registered name or ``scheme:reference`` stands for, whatever it is.

    Raises:
        ConfigError: nobody registered it.
    """
    scheme, colon, rest = a_text("reference", reference).partition(":")
    if reference in _named:
        return _named[reference]()
    if colon and scheme in _loaders:
        return _loaders[scheme](rest)
    known = [*_named, *(f"{loader}:…" for loader in _loaders)]
    nearest = get_close_matches(reference if not colon else f"{scheme}:…", known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(
        f"Sub-policy {reference!r} is unknown; known are {known}.{hint} Call register_sub_policy or register_loader "
        "in every process that makes the environment."
    )


def require_sub_policy(candidate: Any) -> SubPolicy:
    """Return ``candidate`` when it is a sub-policy.

    Raises:
        ConfigError: it lacks ``name``, ``flops`` or ``__call__``; the message names the adapter to use.
    """
    if isinstance(candidate, SubPolicy) and isinstance(candidate.name, str):
        return candidate
    if isinstance(candidate, torch.nn.Module):
        remedy = "Adapt it: ModulePolicy(module, act, example=observation)."
    elif callable(getattr(candidate, "predict", None)):
        remedy = "Adapt it: AgentPolicy(agent, flops=…)."
    else:
        remedy = "Adapt it: FunctionPolicy(function, flops=…)."
    raise ConfigError(f"{candidate!r} is no sub-policy; expected a callable with a name (text) and flops. {remedy}")


def _register(registry: dict[str, Any], key: str, value: Any, kind: str) -> None:
    a_function(f"the factory of the {kind}", value)
    if not isinstance(key, str) or not key or ":" in key:
        raise ConfigError(f"{kind} {key!r}: expected a name without a colon.")
    if registry.get(key, value) is not value:
        raise ConfigError(f"The {kind} {key!r} is registered already, as {registry[key]!r}; choose another name.")
    registry[key] = value


__all__ = [
    "SubPolicies",
    "load_registered",
    "load_sub_policy",
    "register_loader",
    "register_sub_policy",
    "require_sub_policy",
]
