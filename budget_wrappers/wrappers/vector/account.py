"""What each environment of a batch has spent in its episode, shared by the vector wrappers of one stack.

As for single environments, the innermost wrapper that reads a meter owns the account and closes it right after its
inner ``step`` has returned. Episodes of a batch end at different times, and where they are reset depends on the mode:

* ``NEXT_STEP``: the step after an end only resets. The policy ran for that row: executed, not charged, no step of any
  episode.
* ``SAME_STEP``: the step after an end is the first of the next episode.
* ``DISABLED``: the caller resets, with a mask.

So what is summed over an episode is kept until the next step begins (an outer wrapper still reads it) and goes through
``add``, which knows all three.
"""

import numpy as np
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import MeterError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.account import resolve_meter
from budget_wrappers.wrappers.turns import Turn
from budget_wrappers.wrappers.vector.modes import NEXT_STEP, SAME_STEP, autoreset_mode, find_in_vector


class VectorAccount(Turn):
    """FLOPs of ``n`` environments, of the meter's convention.

    Args:
        meter: name or object of the meter that the policy charges.
        n: number of environments.
        mode: see ``autoreset_mode``.

    Attributes:
        meter: what is read.
        cost: of the last step, ``(n,)`` int64; 0 where it only reset.
        total: of the episode that this step belongs to, ``(n,)`` int64.
        ended: where the last step ended an episode, ``(n,)``, or ``None`` for nowhere.
        fresh: where the step before it did, ``(n,)``, or ``None``.
        autoresetting: whether resets are those of episodes that ``end`` was told of.
        idle: where nothing runs in this step, ``(n,)``, as a limit ends the episode; ``None`` for nowhere.
    """

    def __init__(self, meter: str | ComputeMeter, n: int, mode: str) -> None:
        self.meter, self.n = resolve_meter(meter), n
        self.release = self.meter.keep_rows(self)
        self._resets_late, self._resets_at_once = mode == NEXT_STEP, mode == SAME_STEP
        self._names = self.meter.by_name  # a live view
        self.autoresetting, self.idle = False, None
        self.open_turn()
        self.restart(None)
        self.over = True

    @property
    def steps(self) -> np.ndarray:
        """Steps of the episode that the last step belongs to, ``(n,)`` int64."""
        return self._clock - self._start

    def restart(self, mask: np.ndarray | None) -> None:
        """Start an episode where ``mask`` is, everywhere for ``None``; what is pending there is nobody's cost."""
        if self.autoresetting:
            return
        if mask is None:
            self.meter.discard()
            self.begin_turn()
            self._clock = 0
            self.cost, self.total, self._start, self._free = (np.zeros(self.n, np.int64) for _ in range(4))
            self.ended: np.ndarray | None = None
            self.fresh: np.ndarray | None = None
            self._carried: list[dict[str, np.ndarray]] = []
            self._flops: dict[str, np.ndarray] = {}
            self._paid: dict[str, np.ndarray] = {}
            return
        if self.meter.pending_rows:  # the policy has acted already, for the others too
            self._carry(mask if self.resetting is None else mask | self.resetting)
        for sums in (self.total, self._free, *self._flops.values(), *self._paid.values()):
            sums[mask] = 0
        self._start[mask] = self._clock
        self.cost = np.where(mask, 0, self.cost)
        self._carried = [{name: np.where(mask, 0, part) for name, part in parts.items()} for parts in self._carried]
        self.ended, self.fresh = (
            old & ~mask if old is not None and (old & ~mask).any() else None for old in (self.ended, self.fresh)
        )

    @property
    def resetting(self) -> np.ndarray | None:
        """Where the next step only resets, ``(n,)``, or ``None`` for nowhere."""
        return self.ended if self._resets_late else None

    def collect(self) -> np.ndarray:
        """Take what is pending before the step is closed, and return the FLOPs of this step so far, ``(n,)`` int64.

        It may be called several times, or not at all: what was taken early is part of the step when it is closed.

        Raises:
            MeterError: what was charged cannot be told apart by environment.
        """
        ledger = self.meter.row_ledger
        if ledger is None or ledger.charges:
            self._carry(self.resetting)
        return sum((parts[""] for parts in self._carried), np.zeros(self.n, np.int64))

    def _carry(self, free: np.ndarray | None) -> None:
        """Take what is pending and keep it for the step's close; rows of ``free``, ``(n,)``, do not pay for it."""
        cost = self.meter.take_by_row(self.n, None if free is None else ~free)
        self._carried.append({**self.meter.row_ledger.by_name, "": cost})

    def close(self, over: np.ndarray) -> None:
        """Close a step. The common one, nothing ended and one name charged, does as little as can be.

        Args:
            over: where it has ended an episode, ``(n,)``.

        Raises:
            MeterError: what was charged cannot be told apart by environment.
        """
        self.fresh = fresh = self.ended
        cost = self.meter.take_by_row(self.n, None if fresh is None or not self._resets_late else ~fresh)
        by_name = self.meter.row_ledger.by_name
        for parts in self._carried:  # of this step too, taken early
            cost = cost + parts.pop("")
            by_name = {name: by_name.get(name, 0) + parts.get(name, 0) for name in {**by_name, **parts}}
        self._carried.clear()
        some = np.count_nonzero(cost)
        if self.meter.shared:
            self.look_around(some)
        if len(self._names) > 1:
            self._add_by_name(by_name)
        elif fresh is not None or some < self.n:
            self.add(self._free, cost == 0 if self.idle is None else (cost == 0) & ~self.idle)
        self.add(self.total, cost)
        if fresh is not None:
            self._start[fresh] = self._clock + self._resets_late
        if self.idle is not None:  # what is paid there is no step's
            self._start[self.idle] += 1
        self._clock += 1
        self.cost = cost
        self.ended = over if np.count_nonzero(over) else None

    def _add_by_name(self, flops_by_name: dict[str, np.ndarray]) -> None:
        if not self._flops:  # from before a second name turned up: the first one charged
            first = next(iter(self._names))
            self._flops[first], self._paid[first] = self.total.copy(), self.steps - self._free
        nothing = np.zeros(self.n, np.int64)
        for name in {**self._flops, **flops_by_name}:
            flops = flops_by_name.get(name, nothing)
            self.add(self._flops.setdefault(name, nothing.copy()), flops)
            self.add(self._paid.setdefault(name, nothing.copy()), flops > 0)

    def end(self, over: np.ndarray) -> None:
        """Note that a wrapper has ended episodes in this step, ``(n,)``."""
        self.ended = over if self.ended is None else self.ended | over

    def add(self, sums: np.ndarray, values: np.ndarray | int) -> None:
        """Add what the step just closed brought to ``sums`` over an episode, ``(n,)``, in place."""
        fresh = self.fresh
        if fresh is not None and self._resets_at_once:
            sums[fresh] = 0
        sums += values
        if fresh is not None and self._resets_late:
            sums[fresh] = 0

    def clear(self, sums: np.ndarray, mask: np.ndarray | None) -> None:
        """Begin ``sums`` over an episode, ``(n,)``, anew where a reset's ``mask`` is, in place."""
        if not self.autoresetting:
            sums[slice(None) if mask is None else mask] = 0

    def by_name(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return FLOPs, and steps that were not free, of each watched module or named charge, ``(n,)`` each."""
        watched, nothing = self.meter.watched(), np.zeros(self.n, np.int64)
        names = list(watched) + [name for name in self._names if name not in watched]
        if self._flops:
            return tuple({name: sums.get(name, nothing) for name in names} for sums in (self._flops, self._paid))
        flops, paid = dict.fromkeys(names, nothing), dict.fromkeys(names, nothing)
        for name in self._names:  # the only one, if any
            flops[name], paid[name] = self.total, self.steps - self._free
        return flops, paid

    def require_use(self) -> None:
        """Check, at the end of an episode, that the meter is connected to anything, and warn where nothing was charged.

        Raises:
            MeterError: nothing was ever watched or added, so a cost of 0 would be a lie.
        """
        if self.meter.used and (self.meter.graded or not self.total[self.ended].any()):
            paid = self.steps - self._free if len(self._names) < 2 else (self.total > 0) * self.steps
            row = int(np.argmax(np.where(self.ended, self.steps, -1)))  # the longest episode that has ended
            self.explain_silence(int(self.total.sum()), self.n, int(paid[row]), int(self.steps[row]))
        if not self.meter.used:
            raise MeterError(
                f"An episode has ended and meter {self.meter.name!r} never watched a module nor received a charge, in "
                f"this process. Call get_meter({self.meter.name!r}).watch(policy_module) where the policy acts, or "
                ".add(flops, rows=n)."
            )


def join_accounts(env: VectorEnv, meter: str | ComputeMeter) -> tuple[tuple[VectorAccount, ...], VectorAccount, bool]:
    """Return the accounts of the stack, the one of ``meter``, and whether the caller has to close it.

    Args:
        env: the vector environment that the caller wraps.
        meter: name or object.
    """
    inner: tuple[VectorAccount, ...] = find_in_vector(env, "compute_accounts", ())
    wanted = resolve_meter(meter)
    for account in inner:
        if account.meter is wanted:
            return inner, account, False
    account = VectorAccount(meter, env.num_envs, autoreset_mode(env))
    return (*inner, account), account, True


__all__ = ["VectorAccount", "join_accounts"]
