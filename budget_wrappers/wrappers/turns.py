"""Whose acting a step pays for: what an account checks when it closes a step or an episode.

A meter cannot know for which environment a policy acts. Each account knows its own episodes, so together they see what
is wrong: a step that paid for others' acting, policies of two owners in one step, an episode for which nobody acted.
"""

import warnings
from weakref import ref

from budget_wrappers.errors import ComputeWarning, MeterError
from budget_wrappers.metering import ComputeMeter

LONG_SILENCE = 1_000
"""Steps without any charge, while something has learned, after which nobody explores at random."""


class Turn:
    """Base of the accounts of single and of vector environments.

    Attributes:
        meter: the meter that is read.
        over: whether the episode has ended (of a batch: whether it was never reset).
        paid_calls: charges to acting that the last step that paid anything has closed.
        paid_at: how many the meter had closed by then.
    """

    meter: ComputeMeter

    def open_turn(self) -> None:
        """Stand beside the other accounts on the meter; before the first episode."""
        self.over = True
        self._silent_steps = 0
        self.paid_calls = self.paid_at = 0
        self._self = ref(self)
        self.meter.accounts.add(self)
        self.meter.shared = len(self.meter.accounts) > 1
        self.begin_turn()
        self.over = True

    def begin_turn(self) -> None:
        """Note what had been charged when an episode began."""
        self.over = False
        self.paid_calls = 0
        self.paid_anything = False
        self._calls_before, self._free_before = self.meter.calls, self.meter.free_calls
        self._graded_before = dict(self.meter.graded)

    def look_around(self, paid: int) -> None:
        """Check what the meter has just closed, where other accounts read it, too.

        Args:
            paid: above 0 where the step paid something.

        Raises:
            MeterError: it was not this environment's alone, or another one's step has paid for this action.
        """
        meter = self.meter
        if paid:
            self.paid_calls, self.paid_at = meter.last_calls, meter.closed_calls
            self.paid_anything = True
            meter.payer = self._self
            if meter.mixed:
                self._require_one_owner()
        elif meter.payer is not self._self and meter.payer is not None:
            self._require_own_acting()

    def _require_one_owner(self) -> None:
        meter = self.meter
        meter.mixed = False
        others = sum(not account.over for account in meter.accounts if account is not self)
        if others:
            raise MeterError(
                f"meter {meter.name!r} was charged by policies of two owners since the last step, and {others + 1} "
                "environments that read it are within an episode: this one would pay for what acted in another. Give "
                "each agent and its environment a meter of their own, meter='name', or step each environment right "
                "after the policy has acted for it."
            )

    def _require_own_acting(self) -> None:
        meter = self.meter
        other = meter.payer()
        # One action for each of two environments, then their steps: the first has paid for both. A policy may make
        # several charges for one action, and a step may be free: nothing is said where this episode has paid before.
        if other is None or other is self or other.over or self.over or other.paid_calls < 2 or self.paid_anything:
            return
        if meter.closed_calls != other.paid_at or meter.closed_calls == self._calls_before:
            return
        raise MeterError(
            f"a step paid nothing, and the step of another environment on meter {meter.name!r} before it was charged "
            f"{other.paid_calls} times: it has paid for this one's action, too. Let the policy act on all "
            "observations in one batch, and put the wrapper of the same name from budget_wrappers.wrappers.vector "
            "around the vector environment; or step each environment right after its action; or give each "
            "environment's policy a meter of its own. If this action was free: meter.acted_for_free()."
        )

    def explain_silence(self, total: int, rows: int, paid: int, steps: int | None) -> None:
        """Warn, once a meter, of an episode in which a policy may have acted and nothing was charged for it.

        Args:
            total: FLOPs that the episode paid.
            rows: observations of one action.
            paid: steps of the episode that paid something.
            steps: all of them; ``None`` where nobody has counted.
        """
        meter = self.meter
        free = meter.free_calls - self._free_before
        if meter.explained or (steps is not None and free >= steps):
            return
        booked = {}
        for (name, seen), count in meter.graded.items():
            count -= self._graded_before.get((name, seen), 0)
            # One forward of one observation a step, and hardly a step that paid: it acted, and was booked otherwise.
            most = steps is not None and 2 * paid < steps <= 2 * count
            if seen == rows and (most or (count and not total)):
                booked[name] = count
        if booked:
            meter.explained = True
            names = ", ".join(f"{count} forwards of {name!r}" for name, count in booked.items())
            self._warn(
                f"{names} with gradients on were booked as learning in this episode, and few or none as acting. Act "
                "inside torch.no_grad(), or say so: with meter.phase('act')."
            )
        elif not total and meter.calls - self._calls_before == free:
            reason = self._reason(steps)
            if reason:
                meter.explained = True
                self._warn(f"{reason} If actions are random, or a rule's, say so at each: meter.acted_for_free().")
        elif total:
            self._silent_steps = 0

    def _reason(self, steps: int | None) -> str:
        """Say how a policy is seen to have acted in an episode without any charge; nothing where it is not.

        Random warm-up looks the same and is right: so somebody has to have acted, or learned meanwhile for long.
        """
        self._silent_steps += 1 if steps is None else steps
        watches = self.meter.watches()
        for watch in watches:
            kind = type(watch.module).__name__
            if not watch.hooked():
                return f"{watch.name!r}: the hooks of {kind} are gone; watch it again."
            if watch.parts_ran:
                ran = ", ".join(f"{name!r} {count} times" for name, count in watch.parts_ran.items())
                return (
                    f"{watch.name!r}: forward of {kind} never ran, and its {ran}: it acts by another method than "
                    "forward, or by module.forward(x). Watch the part that acts instead, or call module(x)."
                )
        if not watches or not self.meter.learned or self._silent_steps < LONG_SILENCE:
            return ""
        said = "; ".join(f"{watch.name!r}: forward of {type(watch.module).__name__} never ran" for watch in watches)
        return (
            f"{said} in {self._silent_steps} steps, while something has learned. If a policy acted, it did so by "
            "another way: another method than forward, module.forward(x), a copy, a traced or an exported module "
            "(charge meter.add(flops) where that runs)."
        )

    def _warn(self, reason: str) -> None:
        warnings.warn(
            f"An episode has ended for whose actions meter {self.meter.name!r} has charged nothing, or too little. "
            f"{reason}",
            ComputeWarning,
            stacklevel=4,
        )


__all__ = ["Turn"]
