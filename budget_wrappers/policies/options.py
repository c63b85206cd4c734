"""Sub-policies: adapters that make anything that acts one of them, and the ordered set of them.

A sub-policy maps ONE observation to ONE action at a declared cost (``core.SubPolicy``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from budget_wrappers.core import SubPolicy
from budget_wrappers.errors import ConfigError, CostError, UncountableError
from budget_wrappers.functional.costs import relative_costs, validate_flops
from budget_wrappers.metering import CountingMode, count_flops
from budget_wrappers.metering.counting import eagerly, original
from budget_wrappers.metering.structure import is_static

RESERVED_NAMES = frozenset({"selector", "hold"})
"""Names that accounts use for what is not a sub-policy."""

_named: dict[str, Callable[[], Any]] = {}
_loaders: dict[str, Callable[[str], Any]] = {}


def whole_flops(flops: int, name: str) -> int:
    """Return the declared cost of one sub-policy as an int.

    Raises:
        CostError: it is NaN, negative or not whole.
    """
    return int(validate_flops([flops], f"flops of sub-policy {name!r}")[0])


class FunctionPolicy:
    """A sub-policy made of a function and a declared cost: a rule, a controller, a foreign engine."""

    def __init__(self, function: Callable[[Any], Any], flops: int, name: str | None = None) -> None:
        """Adapt ``function``.

        Args:
            function: one observation to one action.
            flops: FLOPs of one call at most, in the ``matmul`` convention; 0 for a rule.
            name: unique among its siblings; the function's own name when None.

        Raises:
            CostError: ``flops`` is NaN, negative or not whole.
        """
        self.name = name if name is not None else getattr(function, "__name__", type(function).__name__)
        self.flops = whole_flops(flops, self.name)
        self._function = function

    def __call__(self, observation: Any) -> Any:
        """Return the action for ``observation``."""
        return self._function(observation)

    def __repr__(self) -> str:
        """Return name and cost."""
        return f"{type(self).__name__}({self.name!r}, flops={self.flops})"


class ModulePolicy:
    """A sub-policy made of a torch module, run without gradients on a batch of one.

    A module whose FLOPs follow from the shapes of its inputs is counted once (torch's own layers and ``Sequential`` of
    them, and classes with ``static_flops = True``). Any other may branch on what it observes: it is counted at every
    call, at several microseconds an operator, and a call above the declared cost raises.

    Attributes:
        batched: whether several observations can be one batch: where calls need not be counted.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        act: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
        example: np.ndarray,
        name: str | None = None,
        flops: int | None = None,
    ) -> None:
        """Adapt ``module``.

        Args:
            module: the network; its device and dtype are those of its first parameter.
            act: ``(module, observations (B, …)) -> actions (B, …)``, e.g. ``lambda net, obs: net(obs).argmax(-1)``;
                ``B`` is 1 but in vector wrappers.
            example: one observation, to count the FLOPs of one call.
            name: unique among its siblings; the module's class when None.
            flops: the most that one call can cost, in the ``matmul`` convention; what the example costs when None.
                Give it for a module that branches: the example takes one branch only.

        Raises:
            CostError: ``flops`` is below what the example costs, NaN, negative or not whole.
            UncountableError: ``module`` is scripted, or the FLOPs of something in it cannot be counted.
        """
        parameter = next(module.parameters(), torch.zeros(()))
        self.module = module
        self._act = act
        self._device, self._dtype = parameter.device, parameter.dtype
        self.name = name if name is not None else type(module).__name__
        self.batched = is_static(original(module))
        counted = int(count_flops(lambda batch: act(module, batch), self._tensor(example).unsqueeze(0)))
        self.flops = counted if flops is None else whole_flops(flops, self.name)
        if self.flops < counted:
            raise CostError(
                f"flops={self.flops} of sub-policy {self.name!r} is below the {counted} FLOPs that the example costs; "
                "expected the most that one call can cost. Raise flops=."
            )

    def _tensor(self, observations: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(observations), dtype=self._dtype, device=self._device)

    @torch.no_grad()
    def __call__(self, observation: np.ndarray) -> Any:
        """Return the action for ``observation`` as numpy, without a batch dimension.

        Raises:
            CostError: this call ran more FLOPs than are declared.
            UncountableError: it took a branch whose FLOPs cannot be counted.
        """
        batch = self._tensor(observation).unsqueeze(0)
        actions = self._act(self.module, batch) if self.batched else self._counted(batch)
        action = actions[0].cpu().numpy()
        return action if action.ndim else action[()]

    @torch.no_grad()
    def batch(self, observations: Sequence[np.ndarray]) -> np.ndarray:
        """Return the actions ``(B, …)`` for ``B`` observations; products of several rows may round in another way.

        Raises:
            UncountableError: each call of this module has to be counted.
        """
        if not self.batched:
            raise UncountableError(
                f"Sub-policy {self.name!r} got {len(observations)} observations and its module may branch on what it "
                "observes: nobody can tell what each of them costs. Call it with one after the other."
            )
        return self._act(self.module, self._tensor(observations)).cpu().numpy()

    def _counted(self, batch: torch.Tensor) -> torch.Tensor:
        """Act and check what really ran: whoever pays has been told of the declared cost only."""
        with eagerly(), CountingMode() as counter:
            actions = self._act(self.module, batch)
        if counter.refused is not None:  # the module may have caught it
            raise counter.refused
        if counter.flops > self.flops:
            raise CostError(
                f"Sub-policy {self.name!r} ran {counter.flops} FLOPs in one call and declares {self.flops}: its module "
                "took a dearer branch than its example did. Pass ModulePolicy(…, flops=): the most one call can cost."
            )
        return actions

    def __repr__(self) -> str:
        """Return name and cost."""
        return f"{type(self).__name__}({self.name!r}, flops={self.flops})"


class AgentPolicy:
    """A sub-policy made of an agent as in Stable-Baselines3: ``predict(obs, deterministic) -> (action, state)``."""

    def __init__(
        self, agent: Any, flops: int, name: str | None = None, deterministic: bool = True, batched: bool = False
    ) -> None:
        """Adapt ``agent``.

        Args:
            agent: anything with ``predict``.
            flops: FLOPs of one ``predict`` on one observation.
            name: unique among its siblings; the agent's class when None.
            deterministic: passed to ``predict``.
            batched: whether ``predict`` takes several observations at once, too, as Stable-Baselines3's does.

        Raises:
            ConfigError: ``agent`` has no ``predict``.
            CostError: ``flops`` is NaN, negative or not whole.
        """
        if not callable(getattr(agent, "predict", None)):
            raise ConfigError(f"{agent!r} has no predict(observation, deterministic=…); use FunctionPolicy.")
        self.agent = agent
        self.name = name if name is not None else type(agent).__name__
        self.flops = whole_flops(flops, self.name)
        self.deterministic, self.batched = deterministic, batched

    @property
    def flops_of_last_call(self) -> int:
        """FLOPs of the last call on one observation, where the agent tells (``flops_spent``); else what is declared."""
        spent = getattr(self.agent, "flops_spent", None)
        return self.flops if spent is None else spent()

    def __call__(self, observation: Any) -> Any:
        """Return the action for ``observation``."""
        return self.agent.predict(observation, deterministic=self.deterministic)[0]

    def batch(self, observations: Sequence[Any]) -> Any:
        """Return the actions ``(B, …)`` for ``B`` observations, where the agent is ``batched``."""
        return self.agent.predict(stacked(observations), deterministic=self.deterministic)[0]

    def __repr__(self) -> str:
        """Return name and cost."""
        return f"{type(self).__name__}({self.name!r}, flops={self.flops})"


class SubPolicies:
    """An unchanging, ordered set of sub-policies: cheapest first, equal costs in the order given.

    It holds references: a deep copy is the set itself, so that an agent goes on training the very objects that act.

    Attributes:
        names: of the sub-policies.
        flops: ``(K,)`` int64, FLOPs of one call of each, in the ``matmul`` convention.
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
                "were given, the cheapest first. Make a new set."
            )
        self.flops = flops
        self.flops.flags.writeable = False

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


def stacked(observations: Sequence[Any]) -> Any:
    """Return observations as one batch, ``(B, …)``: an array, or a dictionary or tuple of such."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: stacked([one[key] for one in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(map(stacked, zip(*observations, strict=True)))
    return np.stack(observations)


def register_sub_policy(name: str, factory: Callable[[], Any]) -> None:
    """Make ``name`` a sub-policy, so that plain data (an environment's spec) can name it.

    Args:
        name: without a colon.
        factory: called each time that the name is loaded; what ``EarlyExitAction`` is to load is an ``ExitPolicy``.

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
    scheme, colon, rest = reference.partition(":")
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
    if not key or ":" in key:
        raise ConfigError(f"{kind} {key!r}: expected a name without a colon.")
    if registry.get(key, value) is not value:
        raise ConfigError(f"The {kind} {key!r} is registered already, as {registry[key]!r}; choose another name.")
    registry[key] = value


__all__ = [
    "AgentPolicy",
    "FunctionPolicy",
    "ModulePolicy",
    "SubPolicies",
    "load_registered",
    "load_sub_policy",
    "register_loader",
    "register_sub_policy",
    "require_sub_policy",
]
