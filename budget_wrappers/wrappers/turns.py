"""Whose acting a step pays for: what an account checks when it closes a step or an episode.

A meter cannot know for which environment a policy acts. Each account knows its own episodes, so together they see what
is wrong: a step that paid for others' acting, policies of two owners in one step, an episode for which nobody acted.
"""

import warnings
from weakref import ref

from budget_wrappers.errors import ComputeWarning, MeterError
from budget_wrappers.metering import ComputeMeter


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
        elif not total and meter.calls - self._calls_before == free and not self._known_to_be_free():
            if free and steps is None:
                return
            meter.explained = True
            self._warn(f"{self._who()} If actions are random, or a rule's, say so at each: meter.acted_for_free().")

    def _known_to_be_free(self) -> bool:
        """Tell whether all that was ever charged is 0 FLOPs: a policy that has said so costs nothing."""
        return bool(self.meter.calls) and not self.meter.executed and not self.meter.watched()

    def _who(self) -> str:
        watched = [(name, module) for name, modules in self.meter.watched().items() for module in modules]
        if not watched:
            return "Nothing is watched now, and add() was not called: watch(module) what acts, or add(flops) its cost."
        said = "; ".join(f"{name!r}: forward of {type(module).__name__} never ran" for name, module in watched)
        module = watched[0][1]
        parts = [child for child, _ in module.named_children()]
        inside = f", for example its {parts[0]!r}," if parts else ""
        return (
            f"{said}. If a policy acted, it did so by another way: another method than forward (watch the part that it "
            f"calls{inside} instead), module.forward(x) instead of module(x), a copy, a traced or an exported module "
            "(charge meter.add(flops) where that runs), or with its hooks removed (watch it again)."
        )

    def _warn(self, reason: str) -> None:
        warnings.warn(
            f"An episode has ended for whose actions meter {self.meter.name!r} has charged nothing, or too little. "
            f"{reason}",
            ComputeWarning,
            stacklevel=4,
        )


__all__ = ["Turn"]
