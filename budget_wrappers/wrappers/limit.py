"""Wrapper that limits what an episode may spend: ``ComputeLimit``."""

from typing import Any, get_args

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError, WrapperOrderError
from budget_wrappers.functional.costs import MOST_FLOPS, as_whole
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.exhaustion import OnExhausted, Transition
from budget_wrappers.wrappers.limited import EpisodeLimit
from budget_wrappers.wrappers.reading import plain, require_options
from budget_wrappers.wrappers.weighing import refuse_adaptive_weight


class ComputeLimit(EpisodeLimit, RecordConstructorArgs):
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
    **inside this step**, which returns the summed reward and the whole ``info["duration"]``. That needs a horizon. A
    selector inside (``step(None)``) is bounded alike; it is not asked where its call and a choice can't be paid.

    **Around an opaque policy** the action was computed before ``step``: an episode passes the limit by at most what one
    step costs, and ``overshoot`` says by how much. ``truncate`` and ``terminate`` end it at the step that exhausts the
    limit, ``hold`` finishes it in that step with its action, and ``cheapest`` raises, as nothing inside can choose.
    A ``step`` that follows one that has raised checks first what the episode has spent, the caller's acting before it
    included. Where that exhausts the limit the environment is not stepped: the episode ends at the last observation, by
    ``truncate`` or ``terminate``. The caller has acted before ``step`` can end anything, so after a failure an episode
    passes the limit by at most what one step and one more action cost. ``hold`` goes on as long as the policy did not
    act with nothing left; where it did, the episode is truncated likewise.

    ``action_masks()``, over a wrapper that chooses, has the choices that the next step runs as they are. A wrapper
    between the two must neither reset in its ``step`` nor act in its ``reset``: that raises WrapperOrderError.

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
            horizon: primitive steps an episode lasts at most; it is truncated there. Time limits of the stack and the
                environment's ``spec.max_episode_steps`` count as well: the least of all is what is kept for.
        """
        if on_exhausted not in get_args(OnExhausted):
            raise ConfigError(f"on_exhausted={on_exhausted!r}; expected one of {', '.join(get_args(OnExhausted))}.")
        max_flops, horizon = plain(max_flops), plain(horizon)
        RecordConstructorArgs.__init__(
            self, max_flops=max_flops, on_exhausted=on_exhausted, meter=meter, horizon=horizon, _disable_deepcopy=True
        )
        EpisodeLimit.__init__(self, env)
        if env.has_wrapper_attr("limit_report"):
            raise WrapperOrderError(f"{env} has a ComputeLimit already; use its set_budget instead of a second one.")
        refuse_adaptive_weight(env, "ComputeLimit")
        self.open_limit(meter, on_exhausted, horizon)
        self.set_budget(max_flops)
        self.budget_unit = self.max_flops
        self.begin(self.max_flops)

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
        executed = self.meter.totals["act"]
        with self._rule.resetting():
            self._observation, info = super().reset(seed=seed, options=options)
        self.begin(self.max_flops, self.meter.totals["act"] - executed)
        return self._observation, self.amend(info, ended=False)

    def step(self, action: Any) -> Transition:
        """Step within the limit, and to the end of the episode where it is exhausted.

        After an exception inside, what has run until then is in the account, and the next ``step`` goes on from there.
        The selector need not run again for it. Where it does it is charged again, so compare ``remaining`` with its
        cost before: a call that cannot be paid passes the limit, by that one call, and the episode ends. A ``step``
        after the environment's own end begins an episode, as the environment has.

        Raises:
            CostError: the selector has cost more than it declares.
            NonFiniteError: the environment's reward is NaN or infinite.
            SpaceError: it is no number, nor a vector of them.
            MeterError: the episode has ended and the meter was never used, or it was charged for a batch.
            WrapperOrderError: the limit had ended the episode, or a wrapper inside resets in its ``step``.
        """
        return self.limited_step(action)


def feasible_limit(flops: int, first_decision: int) -> int:
    """Return a limit as an int.

    Args:
        flops: FLOPs of one episode.
        first_decision: what has to be spent before control comes back for the first time.

    Raises:
        ConfigError: it is not a positive whole number, or above ``MOST_FLOPS``.
        InfeasibleBudgetError: it is below ``first_decision``.
    """
    limit = as_whole(flops)
    if limit is None or not 1 <= limit <= MOST_FLOPS:
        raise ConfigError(
            f"A limit of {flops!r} FLOPs; expected a whole number >= 1, and at most {MOST_FLOPS}. For none leave the "
            "wrapper out."
        )
    if limit < first_decision:
        raise InfeasibleBudgetError(
            f"A limit of {limit} FLOPs an episode is below the {first_decision} that its first decision costs "
            "at least (a selector call and the cheapest choice). Raise it, shorten the hold, or add a cheaper one."
        )
    return limit


__all__ = ["ComputeLimit", "OnExhausted"]
