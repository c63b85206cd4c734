"""Vector wrapper that limits what an episode may spend: ``ComputeLimit``."""

from typing import Any, Literal, get_args

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import ConfigError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.horizon import require_whole_horizon
from budget_wrappers.wrappers.reading import plain, require_options
from budget_wrappers.wrappers.vector.ending import EpisodeEnder
from budget_wrappers.wrappers.vector.limits import EpisodeLimits
from budget_wrappers.wrappers.vector.modes import find_in_vector, reset_mask
from budget_wrappers.wrappers.weighing import refuse_adaptive_weight

Ending = Literal["truncate", "terminate"]


class ComputeLimit(EpisodeLimits, RecordConstructorArgs):
    """Limits the FLOPs that one episode of each environment may spend on acting.

    The vector version of ``budget_wrappers.wrappers.ComputeLimit`` around an opaque policy: an episode passes the limit
    by at most what one step costs, ``overshoot`` says by how much, and ``truncate`` or ``terminate`` ends it at the
    step that exhausts the limit. Around a vector ``SubPolicyAction`` it does the same.

    A ``step`` that follows one that has raised checks first what each episode has spent, acting before it included. For
    environments whose limit that exhausts nothing runs any more, no sub-policy and no step of the environment: their
    episodes end at the last observation, where the environments' own reward is 0, and the others go on. What an opaque
    policy computed before that ``step`` has run, so around one an episode passes the limit by at most what one step and
    one more action cost; where the others' environments make this step raise, too, each repetition adds an action.
    Vector environments other than Gymnasium's ``SyncVectorEnv`` and ``AsyncVectorEnv`` are stepped once more where an
    episode ends.

    Environments that reset themselves know nothing of that end, so this wrapper resets them, with a mask, when their
    mode has it: Gymnasium's ``SyncVectorEnv`` and ``AsyncVectorEnv`` from 1.1 on. In ``NEXT_STEP`` mode the step that
    resets passes the ended environment by, so that its random numbers are those of the environment run singly. Put the
    limit inside wrappers that take no masks, such as ``NormalizeObservation``.

    Whoever wants a hard limit, or ``cheapest`` and ``hold``, puts the scalar wrapper around each environment: they need
    the wrapper that chooses inside.

    Example:
        >>> import gymnasium as gym
        >>> import numpy as np
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.vector import ComputeLimit
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> envs = ComputeLimit(envs, max_flops=1_000, meter="docs.vector.limit")
        >>> obs, infos = envs.reset(seed=0)
        >>> get_meter("docs.vector.limit").add(1_600, rows=2, by_row=[400, 1_200])
        >>> truncations = envs.step([0, 1])[3]
        >>> truncations, envs.remaining, envs.overshoot
        (array([False,  True]), array([600,   0]), array([  0, 200]))
        >>> get_meter("docs.vector.limit").add(600, rows=2, by_row=[300, 300])
        >>> truncations = envs.step([0, 1])[3]  # the second environment is only reset
        >>> truncations, envs.remaining
        (array([False, False]), array([ 300, 1000]))

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: VectorEnv,
        max_flops: int,
        on_exhausted: Ending = "truncate",
        meter: str | ComputeMeter = "policy",
        horizon: int | None = None,
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the vector environment.
            max_flops: FLOPs that one episode may spend, in the meter's convention.
            on_exhausted: ``"truncate"`` or ``"terminate"``.
            meter: name or object of the meter that the policy charges.
            horizon: steps after which an episode is truncated; None for no such end.

        Raises:
            ConfigError: an argument is out of bounds, or the environment resets by itself and takes no masks.
            WrapperOrderError: a limit inside.
            SpaceError: ``env`` is no vector environment.
        """
        if on_exhausted not in get_args(Ending):
            raise ConfigError(
                f"on_exhausted={on_exhausted!r}; expected one of {', '.join(get_args(Ending))}. 'cheapest' and 'hold' "
                "choose inside step(): put budget_wrappers.wrappers.ComputeLimit around each environment."
            )
        max_flops, horizon = plain(max_flops), plain(horizon)
        RecordConstructorArgs.__init__(
            self, max_flops=max_flops, on_exhausted=on_exhausted, meter=meter, horizon=horizon, _disable_deepcopy=True
        )
        EpisodeLimits.__init__(self, env)
        if find_in_vector(env, "limit_report") is not None:
            raise WrapperOrderError(f"{env} has a ComputeLimit already; use its set_budget instead of a second one.")
        refuse_adaptive_weight(env, "ComputeLimit")
        require_whole_horizon(horizon)
        self.open_account(meter)
        self._terminates, self._horizon = on_exhausted == "terminate", horizon
        self._ender = EpisodeEnder(env, self._mode)
        self.set_budget(max_flops)
        self.begin(None)
        self.budget_unit = int(max_flops)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; ``options["budget"]``, one or ``(n,)``, which is passed on too, is ``set_budget`` of what is reset."""
        require_options(options)
        if options is not None and "budget" in options:
            self.set_budget(options["budget"], reset_mask(options)[1])
        executed = self.meter.totals["act"]
        obs, infos, mask = self.reset_rows(seed, options)
        self._ender.forget(mask)
        self.begin(mask)
        self.require_nothing_ran(self.meter.totals["act"] - executed)
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, Any, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step, and end the episodes whose limit is exhausted.

        After an exception inside, ``remaining`` says what is left without what ran until then, and the next step pays.

        Raises:
            MeterError: an episode has ended and the meter was never used, or rows belong to no environment.
            WrapperOrderError: a wrapper inside has reset environments within its ``step``.
        """
        obs, rewards, terminations, truncations, infos = self.step_within(actions)
        by_itself = terminations | truncations
        if self._horizon is not None:
            truncations = truncations | (self._account.steps >= self._horizon)
        exhausted = ~(terminations | truncations) & (self._account.total >= self.limits)
        if self._terminates:
            terminations = terminations | exhausted
        else:
            truncations = truncations | exhausted
        over = terminations | truncations
        if np.count_nonzero(over):
            for account in self.compute_accounts:
                account.end(over)
            self._account.require_use()
            self.begin_next(over)
            if np.count_nonzero(ours := over & ~by_itself):
                obs, infos = self._ender.end(ours, obs, infos)
        self._failed = False
        return obs, rewards, terminations, truncations, self.amend(infos)


__all__ = ["ComputeLimit"]
