"""One episode's spending, shared by the wrappers of one stack.

A meter can be closed (``take``) only once a step, and several wrappers of a stack want the same step's cost. So the
innermost of them owns a :class:`StepAccount` and closes it right after its inner ``step`` has returned, when everything
inside (an option's sub-policies) has run; those further out find the account through any nesting and read it. The
account is a running **total** of the episode: each reader keeps the total it saw last and takes the difference. So a
wrapper in between that steps several times (``RepeatAction``) loses nothing, and collecting early is harmless.
"""

from typing import Any

import gymnasium as gym

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.turns import Turn


def resolve_meter(meter: str | ComputeMeter) -> ComputeMeter:
    """Return the meter called ``meter``, or ``meter`` itself when it is one.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(meter, str):
        return get_meter(meter)
    if not isinstance(meter, ComputeMeter):
        raise ConfigError(
            f"meter={meter!r} is a {type(meter).__name__}; expected the name of a meter or a ComputeMeter."
        )
    return meter


class MeterHandle:
    """A meter that travels by its name: what a wrapper holds, so that it can be pickled and copied.

    Attributes:
        meter: the meter. Given as an object and not by name, it refuses to be pickled, as a copy would count nothing.
    """

    def __init__(self, meter: str | ComputeMeter) -> None:
        """Find the meter by name, or take it as it is."""
        self._name = meter if isinstance(meter, str) else None
        self.meter = resolve_meter(meter)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with a meter given by name as its name."""
        return self.__dict__ if self._name is None else {**self.__dict__, "meter": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find a meter that was given by name again."""
        self.__dict__.update(state)
        self.meter = resolve_meter(self.meter)


class StepAccount(MeterHandle, Turn):
    """What has been spent since the last reset, in FLOPs of the meter's convention.

    Attributes:
        total: FLOPs of this episode so far.
        acts_inside: whether sub-policies are charged within the step, so that a free one was nobody else's charge.
        episode: which episode it is; one that a wrapper inside starts by itself (``Autoreset``) has a number, too.
    """

    acts_inside = False

    def __init__(self, meter: str | ComputeMeter) -> None:
        """Open an account on a meter, given by name or as an object."""
        super().__init__(meter)
        self.episode = 0
        self.open_turn()
        self._restart()

    def _restart(self) -> None:
        self.total = 0
        self._names = self.meter.by_name  # a live view: making one takes as long as a quarter of a step
        self._steps = 0  # collections that were not free
        self._by_name: dict[str, int] = {}
        self._steps_by_name: dict[str, int] = {}

    def collect(self, early: bool = False) -> int:
        """Take what is pending on the meter and return the new total.

        Args:
            early: the step is not over yet, so that nothing may have been paid for it.

        Raises:
            MeterError: one charge held several rows, which is a batch of environments and not one.
        """
        meter = self.meter
        flops = meter.take_flops() if len(self._names) < 2 else self._take_by_name()
        if flops:  # whole and positive: a meter takes no other charge
            self.total += flops  # before what follows may raise: it has run
            self._steps += 1
        if meter.last_rows > 1:
            raise MeterError(
                f"Meter {meter.name!r} was charged for a batch of {meter.last_rows} observations, and this wrapper "
                "expects one: it is for single environments. Either make one environment only (n_envs=1), or leave the "
                "wrapper out of the vector environment and put the one of the same name around it, from "
                "budget_wrappers.wrappers.vector. If the rows are one observation (a planner's candidates, nodes of a "
                "graph, a sequence): meter.watch(module, rows=1), or rows=1 in meter.add(). If the batch was an update "
                "with gradients off: run updates inside meter.phase('learn')."
            )
        if meter.shared and (flops or not (early or self.acts_inside)):
            self.look_around(flops)
        return self.total

    def begin_step(self) -> None:
        """Start an episode where the last one is over: a step after its end that raises nothing has begun another.

        Whoever closes the account or collects early calls it before anything else in its ``step``.
        """
        if self.over:
            self._begin()

    def _begin(self) -> None:
        """Start an episode and keep what is pending: it was spent on its first step."""
        self._restart()
        self.episode += 1
        self.begin_turn()

    def _take_by_name(self) -> int:
        unpaid, spend = self.meter.unpaid, self.meter.take()
        paid = {name: flops - unpaid.get(name, 0) for name, flops in spend.by_name.items()}
        if not self._by_name:  # up to now all was charged under the first name
            first = next(iter(self._names))
            self._by_name[first], self._steps_by_name[first] = self.total, self._steps
            # Its own share reaches back to before this step, as ``take_flops`` closes no account by name.
            paid[first] = spend.charged - sum(flops for name, flops in paid.items() if name != first)
        for name, flops in paid.items():
            if flops:
                self._by_name[name] = self._by_name.get(name, 0) + flops
                self._steps_by_name[name] = self._steps_by_name.get(name, 0) + 1
        return spend.charged

    def by_name(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return FLOPs that were paid, and steps that were not free, of each watched module or named charge."""
        names = list(self.meter.watched()) + [name for name in self.meter.by_name if name not in self.meter.watched()]
        flops = {name: self._by_name.get(name, 0) for name in names}
        steps = {name: self._steps_by_name.get(name, 0) for name in names}
        if self._steps and not self._by_name:  # one name was charged
            first = next(iter(self._names))
            flops[first], steps[first] = self.total, self._steps
        return flops, steps

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the live view of the meter's names and what others know it by."""
        return {key: value for key, value in super().__getstate__().items() if key not in ("_names", "_self")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find the meter and its names again."""
        super().__setstate__(state)
        self._names = self.meter.by_name
        over = self.over
        self.open_turn()
        self.over = over

    def discard(self) -> None:
        """Start an episode: drop what is pending and forget the last one."""
        self.meter.discard()
        self._begin()

    def require_use(self, steps: int | None = None) -> None:
        """End an episode: check that the meter is connected to anything, and warn where nothing was charged.

        Args:
            steps: of the episode, where the caller has counted them.

        Raises:
            MeterError: nothing was ever watched or added, so a cost of 0 would be a lie.
        """
        self.over = True
        if self.meter.used and (not self.total or self.meter.graded):
            self.explain_silence(self.total, 1, self._steps, steps)
        if not self.meter.used:
            raise MeterError(
                f"An episode has ended and meter {self.meter.name!r} never watched a module nor received a charge, in "
                f"this process. Call get_meter({self.meter.name!r}).watch(policy_module) where the policy acts, or "
                ".add(flops); for a module that a team shares, charge_agents(). With environments in worker processes "
                "leave the wrapper out of them and wrap the vector environment, in the main process, with the one of "
                "the same name in budget_wrappers.wrappers.vector."
            )


class RawReturn:
    """The sum of this episode's rewards before any penalty; the innermost wrapper that penalises writes it.

    Attributes:
        value: the sum.
    """

    def __init__(self) -> None:
        """Start at 0."""
        self.value = 0.0


def find_attribute(env: gym.Env, name: str, default: Any = None) -> Any:
    """Return the attribute ``name`` of ``env`` or of a layer inside it, else ``default``."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def join_accounts(env: gym.Env, meter: str | ComputeMeter) -> tuple[tuple[StepAccount, ...], StepAccount, bool]:
    """Return the accounts of the stack, the one of ``meter``, and whether the caller has to close it.

    The caller publishes the first as its attribute ``compute_accounts``: the next wrapper out finds it there.

    Args:
        env: the environment that the caller wraps.
        meter: name or object.
    """
    inner: tuple[StepAccount, ...] = find_attribute(env, "compute_accounts", ())
    wanted = resolve_meter(meter)
    for account in inner:
        if account.meter is wanted:
            return inner, account, False
    account = StepAccount(meter)
    return (*inner, account), account, True


__all__ = ["MeterHandle", "RawReturn", "StepAccount", "find_attribute", "join_accounts", "resolve_meter"]
