"""What sub-policies remember within an episode, kept by whoever chooses among them, for each environment apart.

A sub-policy has a memory in one of two ways. One hands it back and gets it again (``core.RecurrentSubPolicy``): any
number of environments may share it. Another keeps it in itself and has ``reset()``: one environment at a time may use
it. In both a memory begins with the episode and holds the steps at which its sub-policy acted: a step at which another
one acts, or a held action goes on, is not in it. A call that raises leaves a memory that is handed back as it was.
"""

import copy
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from budget_wrappers.core import SubPolicy
from budget_wrappers.errors import ConfigError
from budget_wrappers.policies.adapters import reset_of


class Lease:
    """Which ``Memories`` an object that keeps its memory in itself works for now.

    Attributes:
        taken_by: the one that reset it last.
    """

    def __init__(self) -> None:
        self.taken_by: Any = None


_leases: list[tuple[Any, Lease]] = []  # by identity: equal objects are not the same memory


def lease_of(holder: Any) -> Lease:
    """Return the lease of an object, the same one every time."""
    _leases[:] = [(refer, lease) for refer, lease in _leases if refer() is not None]
    for refer, lease in _leases:
        if refer() is holder:
            return lease
    _leases.append((_reference(holder), Lease()))
    return _leases[-1][1]


def _reference(holder: Any) -> Any:
    try:
        return weakref.ref(holder)
    except TypeError:  # it has slots: kept alive, as its address could be another's later
        return lambda: holder


class Memories:
    """One sub-policy as ``n`` environments run it, each with a memory of its own.

    Args:
        policy: the sub-policy.
        n: environments that share it here.

    Attributes:
        lease: of the object that keeps its memory in itself, else None.

    Raises:
        ConfigError: it keeps its memory in itself, and ``n`` is above 1; or its ``reset`` takes arguments.
    """

    def __init__(self, policy: SubPolicy, n: int = 1) -> None:
        self.policy, self._passes = policy, passes_memory(policy)
        self._memory: list[Any] = [None] * n
        holder = _holder_of(policy)
        self.lease = None if holder is None else lease_of(holder)
        if self.lease is not None and n > 1:
            raise ConfigError(
                f"Sub-policy {policy.name!r} keeps its memory in itself, and {n} environments would share it; expected "
                "one that hands its memory back, as AgentPolicy does with predict(observation, state=…), or the "
                "wrapper for single environments around each one, with an object of its own."
            )

    @property
    def plain(self) -> bool:
        """Whether there is nothing to remember here: the policy itself does as well."""
        return not self._passes and self.lease is None

    def begin(self, rows: Iterable[int] | None = None) -> None:
        """Tell the sub-policy that an episode begins, in ``rows`` or in all environments."""
        for row in range(len(self._memory)) if rows is None else rows:
            self._memory[row] = None
        if self.lease is not None and (rows is None or tuple(rows)):
            self.lease.taken_by = self
            self.policy.reset()

    def act(self, observation: Any, row: int = 0) -> Any:
        """Return the action for ``observation`` of one environment.

        Raises:
            ConfigError: another environment has made the sub-policy forget in the middle of this episode.
        """
        if self.lease is not None and self.lease.taken_by is not self:
            raise ConfigError(
                f"Sub-policy {self.policy.name!r} keeps its memory in itself, and another environment has reset it "
                "since this episode began; expected one environment at a time. Give each environment an object of its "
                "own, or let predict(observation, state=…) hand the memory back."
            )
        if not self._passes:
            return self.policy(observation)
        action, self._memory[row] = self.policy.act_with_memory(observation, self._memory[row])
        return action

    __call__ = act

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same sub-policy with a copy of what it has handed back; what it keeps in itself is not copied."""
        twin = type(self)(self.policy, len(self._memory))
        twin._memory = copy.deepcopy(self._memory, memo)
        return twin

    def __reduce__(self) -> Any:
        """Return what makes it anew in another process: leases are of one process."""
        return _restored, (self.policy, self._memory, self.lease is not None and self.lease.taken_by is self)

    def batch(self, observations: Sequence[Any], rows: Sequence[int]) -> Any:
        """Return an action for each of ``observations``, of the environments ``rows``; for a ``BatchSubPolicy``."""
        if not (self._passes and hasattr(self.policy, "batch_with_memory")):
            return self.policy.batch(observations)
        actions, memories = self.policy.batch_with_memory(observations, [self._memory[row] for row in rows])
        for row, memory in zip(rows, memories, strict=True):
            self._memory[row] = memory
        return actions


class Actors(list[Any]):
    """What one environment calls for each sub-policy: itself, or its ``Memories`` where it remembers.

    A deep copy calls the very same sub-policies, as a copy of their set does.
    """

    @classmethod
    def of(cls, sub_policies: Iterable[SubPolicy]) -> Self:
        """Return those of a set."""
        kept = [Memories(policy) for policy in sub_policies]
        return cls(one.policy if one.plain else one for one in kept)

    def begin(self) -> None:
        """Tell all that remember that an episode begins."""
        for actor in self:
            if isinstance(actor, Memories):
                actor.begin()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same sub-policies, with copies of what is remembered."""
        return type(self)(copy.deepcopy(one, memo) if isinstance(one, Memories) else one for one in self)


def refuse_shared_memory(actors: Mapping[Any, Actors]) -> None:
    """Check that no two agents of a team use one object that keeps a memory in itself.

    Raises:
        ConfigError: two do.
    """
    taken: list[tuple[Lease, Any]] = []
    for agent, own in actors.items():
        for one in own:
            lease = one.lease if isinstance(one, Memories) else None
            for other, holder in taken:
                if lease is other and holder != agent:
                    raise ConfigError(
                        f"Sub-policy {one.policy.name!r} keeps its memory in itself, and {holder!r} and {agent!r} "
                        "would share it; expected an object for each agent. Pass sub_policies={agent: …}, or let "
                        "predict(observation, state=…) hand the memory back."
                    )
            if lease is not None:
                taken.append((lease, agent))


def _restored(policy: SubPolicy, memory: list[Any], taken: bool) -> Memories:
    made = Memories(policy, len(memory))
    made._memory = memory
    if taken and made.lease is not None:
        made.lease.taken_by = made
    return made


def passes_memory(policy: Any) -> bool:
    """Tell whether ``policy`` acts by ``act_with_memory``: not where a subclass has overridden ``__call__`` since."""
    for kind in type(policy).__mro__:
        if "act_with_memory" in vars(kind):
            return True
        if "__call__" in vars(kind):
            return False
    return False


def _holder_of(policy: Any) -> Any:
    """Return the object that keeps the memory of ``policy``, None where none does.

    Raises:
        ConfigError: it has a ``reset`` that takes arguments.
    """
    if not callable(own := getattr(policy, "reset", None)):
        return None
    reset_of(policy, own, policy.name)
    return getattr(policy, "memory_holder", policy)


__all__ = ["Actors", "Memories", "refuse_shared_memory"]
