"""Vector wrapper that limits what an episode may spend: ``ComputeLimit``."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import ConfigError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.exhaustion import require_whole_horizon
from budget_wrappers.wrappers.limit import feasible_limit
from budget_wrappers.wrappers.reading import plain
from budget_wrappers.wrappers.vector.modes import DISABLED, find
from budget_wrappers.wrappers.vector.observation import for_each
from budget_wrappers.wrappers.vector.reading import VectorCostReader

Ending = Literal["truncate", "terminate"]


class ComputeLimit(VectorCostReader, RecordConstructorArgs):
    """Limits the FLOPs that one episode of each environment may spend on acting.

    The vector version of ``budget_wrappers.wrappers.ComputeLimit`` around an opaque policy: an episode passes the limit
    by at most what one step costs, ``overshoot`` says by how much, and ``truncate`` or ``terminate`` ends it at the
    step that exhausts the limit.

    Only a caller who resets by himself can be told that an episode has ended which the environment would go on with:
    autoreset mode ``DISABLED``. In the other modes environments reset themselves, at ends of their own only; there put
    the limit around each environment. So does whoever wants a hard limit or ``cheapest`` and ``hold``: they need the
    wrapper that chooses inside.

    Example:
        >>> import gymnasium as gym
        >>> import numpy as np
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.vector import ComputeLimit
        >>> disabled = {"autoreset_mode": gym.vector.AutoresetMode.DISABLED}
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync", vector_kwargs=disabled)
        >>> envs = ComputeLimit(envs, max_flops=1_000, meter="docs.vector.limit")
        >>> obs, infos = envs.reset(seed=0)
        >>> get_meter("docs.vector.limit").add(1_600, rows=2, by_row=[400, 1_200])
        >>> truncations = envs.step([0, 1])[3]
        >>> truncations, envs.remaining, envs.overshoot
        (array([False,  True]), array([600,   0]), array([  0, 200]))
        >>> obs, infos = envs.reset(options={"reset_mask": truncations})
        >>> envs.remaining
        array([ 600, 1000])

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
            env: the vector environment, whose autoreset is disabled.
            max_flops: FLOPs that one episode may spend, in the meter's convention.
            on_exhausted: ``"truncate"`` or ``"terminate"``.
            meter: name or object of the meter that the policy charges.
            horizon: steps after which an episode is truncated; None for no such end.

        Raises:
            ConfigError: an argument is out of bounds, or the environment resets by itself.
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
        VectorCostReader.__init__(self, env)
        require_resets_by_caller(env, self._mode)
        if find(env, "limit_report") is not None:
            raise WrapperOrderError(f"{env} has a ComputeLimit already; use its set_budget instead of a second one.")
        require_whole_horizon(horizon)
        self.open_account(meter)
        self._terminates, self._horizon = on_exhausted == "terminate", horizon
        self.set_budget(max_flops)
        self.limits, self.budget_unit = self.max_flops.copy(), int(max_flops)

    @property
    def remaining(self) -> np.ndarray:
        """FLOPs of each running episode's limit that are left, ``(n,)``."""
        return np.maximum(self.limits - self._account.total, 0)

    @property
    def overshoot(self) -> np.ndarray:
        """FLOPs by which each running episode has passed its limit, ``(n,)``."""
        return np.maximum(self._account.total - self.limits, 0)

    def set_budget(self, flops: int | Sequence[int] | np.ndarray) -> None:
        """Set the limit of all episodes, or ``(n,)`` of each environment's, from the next reset on.

        Raises:
            ConfigError: one is not a positive whole number, or there are not ``n``.
        """
        self.max_flops = np.array([feasible_limit(limit, 0) for limit in for_each(flops, self._n)], np.int64)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; ``options["budget"]``, one or ``(n,)``, which is passed on too, is ``set_budget`` just before."""
        if options is not None and "budget" in options:
            self.set_budget(options["budget"])
        obs, infos, mask = self.reset_rows(seed, options)
        self.limits = self.max_flops.copy() if mask is None else np.where(mask, self.max_flops, self.limits)
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, Any, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step, and end the episodes whose limit is exhausted.

        Raises:
            MeterError: an episode has ended and the meter was never used, or rows belong to no environment.
        """
        obs, rewards, terminations, truncations, infos = self.env.step(actions)
        self.read_cost(terminations, truncations)
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
        return obs, rewards, terminations, truncations, self.amend(infos)

    def limit_report(self) -> dict[str, np.ndarray]:
        """Return what ``infos["compute"]`` says about the limits, ``(n,)`` each."""
        numbers = {"limit": self.limits, "overshoot": self.overshoot, "held_steps": np.zeros(self._n)}
        return {key: number.astype(np.float64) for key, number in numbers.items()}

    report = limit_report


def require_resets_by_caller(env: VectorEnv, mode: str) -> None:
    """Check that nobody else resets the environments; raises ConfigError."""
    if mode != DISABLED:
        raise ConfigError(
            f"ComputeLimit cannot end episodes in {env}, which resets its environments by itself (autoreset mode "
            f"{mode}) and would go on with them. Make it with autoreset_mode=AutoresetMode.DISABLED and reset with "
            "options={'reset_mask': ended}, or put budget_wrappers.wrappers.ComputeLimit around each environment, "
            "around the policy's own choice there."
        )


__all__ = ["ComputeLimit"]
