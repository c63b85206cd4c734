"""Wrapper that limits what an episode may spend: ``ComputeLimit``."""

import math
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.exhaustion import EpisodeBudget, OnExhausted, Transition, make_rule, merge_infos
from budget_wrappers.wrappers.reading import CostReader, plain, require_options


class ComputeLimit(CostReader, RecordConstructorArgs):
    """Limits the FLOPs that one episode may spend on acting.

    **Over a wrapper that chooses** (``SubPolicyAction``, ``EarlyExitAction``, through any nesting) the limit is hard:
    executed FLOPs, the selector's included, never pass it. A choice is checked before it runs, as a whole and at its
    declared cost; what replaces one that does not fit is ``on_exhausted``:

    * ``"cheapest"``: the cheapest sub-policy, and the cheapest path to the horizon is kept affordable all along, its
      selector calls included. With a limit below that path the cheapest runs as long as it can be paid for;
    * ``"hold"``: the last action again; nothing is kept back;
    * ``"truncate"``, ``"terminate"``: the cheapest; the episode ends when not even that can be paid for.

    An outside selector runs before each ``step``, so control does not come back to it when its next call and the
    cheapest choice can't be paid: ``cheapest`` and ``hold`` then repeat the last action to the end of the episode
    **inside this step**, which returns the summed reward and the whole ``info["duration"]``. That needs a horizon.

    **Around an opaque policy** the action was computed before ``step``: an episode passes the limit by at most what one
    step costs, and ``overshoot`` says by how much. ``truncate`` and ``terminate`` end it at the step that exhausts the
    limit, ``hold`` finishes it in that step with its action, and ``cheapest`` raises, as nothing inside can choose.

    ``terminate`` is right where the policy sees what remains, else ``truncate``.

    A vector version exists: ``budget_wrappers.wrappers.vector.ComputeLimit``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers import ComputeLimit
        >>> env = ComputeLimit(gym.make("CartPole-v1"), max_flops=1_000, on_exhausted="truncate", meter="docs.limit")
        >>> obs, info = env.reset(seed=0)
        >>> get_meter("docs.limit").add(1_200)
        >>> env.step(1)[3], env.remaining, env.overshoot
        (True, 0, 200)

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: gym.Env,
        max_flops: int,
        on_exhausted: OnExhausted = "cheapest",
        meter: str | ComputeMeter = "policy",
        horizon: int | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, InfeasibleBudgetError and WrapperOrderError.

        Args:
            env: the environment.
            max_flops: FLOPs that one episode may spend, in the meter's convention.
            on_exhausted: what happens when they are spent, see above.
            meter: name or object of the meter that the policy charges.
            horizon: primitive steps an episode lasts at most; it is truncated there. None finds the time limit.
        """
        if on_exhausted not in get_args(OnExhausted):
            raise ConfigError(f"on_exhausted={on_exhausted!r}; expected one of {', '.join(get_args(OnExhausted))}.")
        max_flops, horizon = plain(max_flops), plain(horizon)
        RecordConstructorArgs.__init__(
            self, max_flops=max_flops, on_exhausted=on_exhausted, meter=meter, horizon=horizon, _disable_deepcopy=True
        )
        CostReader.__init__(self, env)
        if env.has_wrapper_attr("limit_report"):
            raise WrapperOrderError(f"{env} has a ComputeLimit already; use its set_budget instead of a second one.")
        self.open_account(meter)
        self._rule = make_rule(env, self.meter, on_exhausted, horizon)
        self._ends_as = {"truncate": (False, True), "terminate": (True, False)}.get(on_exhausted)
        self._summed = ("duration", env.get_wrapper_attr("cost_key")) if self._amends else ("duration",)
        self.set_budget(max_flops)
        self.budget_unit = self.max_flops
        self.episode = EpisodeBudget(self.max_flops)

    @property
    def remaining(self) -> int:
        """FLOPs of the running episode's limit that are left."""
        return max(self.episode.limit - self.episode.spent, 0)

    @property
    def overshoot(self) -> int:
        """FLOPs by which the running episode has passed its limit; 0 over a wrapper that chooses."""
        return max(self.episode.spent - self.episode.limit, 0)

    def set_budget(self, flops: int) -> None:
        """Set the limit from the next reset on, as a limit holds for a whole episode.

        Raises:
            ConfigError: it is not a positive whole number.
            InfeasibleBudgetError: it is below what the first decision costs.
        """
        self.max_flops = feasible_limit(flops, self._rule.first_decision())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; ``options["budget"]``, which is passed on too, is the same as ``set_budget`` just before."""
        require_options(options)
        self.set_budget(self.max_flops if options is None else options.get("budget", self.max_flops))
        obs, info = super().reset(seed=seed, options=options)
        self.episode = EpisodeBudget(self.max_flops)
        return obs, self.amend(info, ended=False)

    def step(self, action: Any) -> Transition:
        """Step within the limit, and to the end of the episode where it is exhausted.

        Raises:
            CostError: the selector has cost more than it declares.
            NonFiniteError: the environment's reward is NaN or infinite.
            SpaceError: it is no number, nor a vector of them.
            MeterError: the episode has ended and the meter was never used, or it was charged for a batch.
        """
        episode, rule = self.episode, self._rule
        self._account.begin_step()
        rule.before(episode, self._account.collect())
        transition = rule.after(episode, self.env.step(action))
        self.read_cost()
        episode.spent = self._seen
        if not (transition[2] or transition[3]) and rule.exhausted(episode):
            if self._ends_as is None:
                transition = merge(transition, rule.hold(self.env, action, episode), self._summed)
            else:
                transition = (*transition[:2], *self._ends_as, transition[4])
        ended = transition[2] or transition[3]
        if ended:
            self._account.require_use()
        return *transition[:4], self.amend(transition[4], ended)

    def limit_report(self) -> dict[str, np.float64]:
        """Return what ``info["compute"]`` says about the limit."""
        numbers = {"limit": self.episode.limit, "overshoot": self.overshoot, "held_steps": self.episode.held_steps}
        return {key: np.float64(number) for key, number in numbers.items()}

    report = limit_report


def feasible_limit(flops: int, first_decision: int) -> int:
    """Return a limit as an int.

    Args:
        flops: FLOPs of one episode.
        first_decision: what has to be spent before control comes back for the first time.

    Raises:
        ConfigError: it is not a positive whole number.
        InfeasibleBudgetError: it is below ``first_decision``.
    """
    number = isinstance(flops, int | float | np.integer | np.floating) and not isinstance(flops, bool)
    if not number or not 1 <= flops < math.inf or flops != int(flops):
        raise ConfigError(f"A limit of {flops!r} FLOPs; expected a whole number >= 1. For none leave the wrapper out.")
    if flops < first_decision:
        raise InfeasibleBudgetError(
            f"A limit of {int(flops)} FLOPs an episode is below the {first_decision} that its first decision costs "
            "at least (a selector call and the cheapest choice). Raise it, shorten the hold, or add a cheaper one."
        )
    return int(flops)


def merge(first: Transition, held: Transition, summed: tuple[str, ...]) -> Transition:
    """Return two successive transitions as one: rewards are added, and the counts in ``info`` called ``summed``."""
    return held[0], first[1] + held[1], held[2], held[3], merge_infos(first[4], held[4], summed)


__all__ = ["ComputeLimit", "OnExhausted"]
