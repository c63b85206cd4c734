"""What every vector wrapper that reads a meter shares."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from budget_wrappers.errors import NonFiniteError, SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.reading import SUMMARY_KEY
from budget_wrappers.wrappers.vector.account import VectorAccount, join_accounts
from budget_wrappers.wrappers.vector.arrays import was_reset
from budget_wrappers.wrappers.vector.infos import put
from budget_wrappers.wrappers.vector.modes import NEXT_STEP, SAME_STEP, autoreset_mode, find_in_vector, reset_mask


class VectorCostReader(VectorWrapper):
    """Base of the vector wrappers that read what a step cost each environment.

    Attributes:
        compute_accounts: every account of the stack up to here, for the wrappers further out.
    """

    compute_accounts: tuple[VectorAccount, ...]
    _closes = False  # Gymnasium before 1.4 closes what was refused in its making, too

    def __init__(self, env: VectorEnv) -> None:
        require_vector(env, type(self).__name__)
        super().__init__(env)
        self._n, self._mode = env.num_envs, autoreset_mode(env)

    def open_account(self, meter: str | ComputeMeter) -> None:
        """Share the account that a wrapper inside owns, or own a new one."""
        self.compute_accounts, self._account, self._closes = join_accounts(self.env, meter)
        self._amends = find_in_vector(self.env, "cost_key") is not None  # a RecordComputeStatistics inside

    @property
    def meter(self) -> ComputeMeter:
        """The meter whose cost is read."""
        return self._account.meter

    def reset_rows(self, seed: Any, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any], np.ndarray | None]:
        """Reset the environments, or those of ``options["reset_mask"]``, and their accounts.

        Returns:
            Observations, infos, and the mask, ``None`` where everything was reset.
        """
        options, mask = reset_mask(options)
        obs, infos = was_reset(self.env, seed, options)
        if self._closes:
            self._account.restart(mask)
        return obs, infos, mask

    def read_cost(self, terminations: Any, truncations: Any) -> np.ndarray:
        """Return the FLOPs of the step, ``(n,)`` int64; called once after each inner step.

        Raises:
            MeterError: they cannot be told apart by environment, or an episode has ended and nothing was ever charged.
        """
        account = self._account
        if self._closes:
            account.close(np.logical_or(terminations, truncations))
        if account.ended is not None:
            account.require_use()
        return account.cost

    def close(self, **kwargs: Any) -> None:
        """Close the environments and let go of the meter."""
        if self._closes:
            self._account.release()
        super().close(**kwargs)

    def report(self) -> dict[str, np.ndarray]:
        """Return what this wrapper knows better than a recorder inside of it, ``(n,)`` each."""
        return {}

    def compute_summary(self) -> dict[str, Any]:
        """Return the account of each episode, ``(n,)`` each, as the recorder inside and this wrapper see it."""
        return {**find_in_vector(self.env, "compute_summary")(), **self.report()}

    def amend(self, infos: dict[str, Any]) -> dict[str, Any]:
        """Return ``infos`` with our report in the recorder's account of the episodes that this step has ended."""
        if not self._amends or self._account.ended is None:
            return infos
        return put(infos, {SUMMARY_KEY: self.compute_summary()}, self._account.ended, self._mode == SAME_STEP)

    def tell_reset(self, infos: dict[str, Any], entries: dict[str, float], mask: np.ndarray | None) -> dict[str, Any]:
        """Return a copy of the ``infos`` of a reset with what it tells where its ``mask`` is, ``None`` for all."""
        return put(infos, entries, np.ones(self._n, bool) if mask is None else mask, final=False)

    def tell(self, infos: dict[str, Any], entries: dict[str, np.ndarray], at_reset: dict[str, float]) -> dict[str, Any]:
        """Return a copy of the ``infos`` of the step just closed with what each environment tells of it.

        Args:
            infos: of the step.
            entries: what a step tells, ``(n,)`` each.
            at_reset: what a reset tells in its place.
        """
        starts = self._account.fresh if self._mode == NEXT_STEP else None
        if self._mode == SAME_STEP and self._account.ended is not None:
            starts = self._account.ended
            infos = put(infos, entries, starts, final=True)
        if starts is not None:
            entries = {key: np.where(starts, at_reset[key], value) for key, value in entries.items()}
        return put(infos, entries, np.ones(self._n, bool), final=False)


def require_vector(env: Any, name: str) -> None:
    """Check that ``env`` is a vector environment of Gymnasium's kind.

    Raises:
        SpaceError: it is not.
    """
    if not isinstance(env, VectorEnv):
        raise SpaceError(
            f"{name} got a {type(env).__name__}; expected a gymnasium.vector.VectorEnv. For a single environment use "
            f"budget_wrappers.wrappers.{name}, for another library's vector environment as_vector_env(env) first."
        )


def refuse_second_penalty(wrapper: VectorWrapper, meter: ComputeMeter) -> None:
    """Check that no layer inside ``wrapper`` makes the same cost reward already.

    Raises:
        WrapperOrderError: one does, so the cost would be subtracted twice.
    """
    layer = wrapper.env
    while isinstance(layer, VectorWrapper):
        if hasattr(layer, "raw_return") and layer.meter is meter and layer.weight > 0:
            raise WrapperOrderError(
                f"{type(wrapper).__name__} would charge the rewards for meter {meter.name!r} a second time: "
                f"{type(layer).__name__} inside has weight={layer.weight!r}. Keep one, or set the inner weight to 0."
            )
        layer = layer.env


def finite_rewards(rewards: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return ``rewards`` as an array.

    Args:
        rewards: what the environments handed out.
        shape: ``(n,)``, or ``(n, m)`` for vector rewards.

    Raises:
        NonFiniteError: one of them is NaN or infinite.
        SpaceError: they are no numbers, or of another shape.
    """
    values = np.asarray(rewards)
    if values.shape != shape or values.dtype.kind not in "fiub":
        raise SpaceError(
            f"The rewards are {rewards!r}: shape {values.shape}, type {values.dtype}; expected {shape} numbers. They "
            "come from the environments: hand out float(reward) there."
        )
    finite = np.isfinite(values)
    if np.count_nonzero(finite) < values.size:
        first = tuple(np.argwhere(~finite)[0])
        raise NonFiniteError(
            f"The reward of environment {first[0]} is {values[first]}; expected a finite number. It comes from the "
            "environment: look for a division by zero or a state that has left its bounds."
        )
    return values


def as_handed_out(rewards: np.ndarray, handed_out: np.ndarray) -> np.ndarray:
    """Return float64 ``rewards`` in the float type that the environments handed theirs out in, where that is one."""
    if handed_out.dtype is rewards.dtype or handed_out.dtype.kind != "f":
        return rewards
    return rewards.astype(handed_out.dtype, copy=False)


__all__ = [
    "VectorCostReader",
    "as_handed_out",
    "finite_rewards",
    "refuse_second_penalty",
    "require_vector",
]
