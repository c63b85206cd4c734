"""Vector wrapper that shows the policy its budget: ``BudgetAwareObservation``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, iterate

from budget_wrappers.errors import ConfigError
from budget_wrappers.wrappers.observation import (
    GivenShare,
    What,
    checked_share,
    flat_space,
    flat_with,
    nested_space,
    nested_with,
    require_arguments,
    require_sense,
)
from budget_wrappers.wrappers.reading import plain
from budget_wrappers.wrappers.vector.arrays import as_numpy, stepped, was_reset
from budget_wrappers.wrappers.vector.modes import NEXT_STEP, SAME_STEP, autoreset_mode, find_in_vector, reset_mask
from budget_wrappers.wrappers.vector.reading import require_vector


class BudgetAwareObservation(VectorWrapper, RecordConstructorArgs):
    """Adds each environment's budget to its observation, as a float32 in [0, 1].

    The vector version of ``budget_wrappers.wrappers.BudgetAwareObservation``, in every autoreset mode, with the same
    two readings of ``what``: the share of the episode's limit that is left (over a vector ``ComputeLimit``), or the
    budget that was given. Observations are batches of what that wrapper hands out: flattened ``(n, D + 1)`` with the
    budget last, or nested. In ``SAME_STEP`` mode ``infos["final_obs"]`` has the budget of the episode that has ended.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.wrappers.vector import BudgetAwareObservation
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> envs = BudgetAwareObservation(envs, what="budget")
        >>> obs, infos = envs.reset(seed=0, options={"budget": [0.25, 0.5]})
        >>> obs.shape, obs[:, -1]
        ((2, 5), array([0.25, 0.5 ], dtype=float32))

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: VectorEnv,
        what: What = "remaining",
        flatten: bool = True,
        *,
        scale: int | None = None,
        draw: tuple[float, float] | None = None,
        dict_key: str = "budget",
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the vector environment; the other arguments are those of the wrapper for single environments.
            what: the remaining share, or the budget that was given.
            flatten: return one vector for each environment.
            scale: FLOPs that count as a budget of 1, for ``what="budget"`` over a ``ComputeLimit``.
            draw: ends within [0, 1] that each episode's share is drawn between.
            dict_key: key in a Dict observation.

        Raises:
            ConfigError: an argument is out of bounds.
            SpaceError: ``dict_key`` is taken, the observation cannot be flattened, or ``env`` is no vector one.
            WrapperOrderError: ``remaining`` (or ``scale``) without a ``ComputeLimit`` inside.
        """
        flatten = require_arguments(what, flatten, dict_key)
        RecordConstructorArgs.__init__(
            self, what=what, flatten=plain(flatten), scale=plain(scale), draw=plain(draw), dict_key=dict_key
        )
        require_vector(env, type(self).__name__)
        VectorWrapper.__init__(self, env)
        self._limited = find_in_vector(env, "limit_report") is not None
        require_sense(env, what, scale, draw, self._limited)
        self._given = GivenShares(env.num_envs, draw)
        self._what, self._flatten, self._key = what, flatten, dict_key
        self._scale = scale if scale is not None or not self._limited else find_in_vector(env, "budget_unit")
        self._mode, self._ended = autoreset_mode(env), np.zeros(env.num_envs, bool)
        self._single = env.single_observation_space
        self.single_observation_space = flat_space(self._single) if flatten else nested_space(self._single, dict_key)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    @property
    def adds_share_last(self) -> bool:
        """Whether the last number of an observation is a share that was given or drawn."""
        return self._what == "budget" and self._flatten and not self._limited

    @property
    def budget(self) -> np.ndarray:
        """The numbers that are added, ``(n,)`` in [0, 1]."""
        return self._shares("limits", "remaining")

    @property
    def given_budget(self) -> float | list[float | None] | None:
        """The shares given that hold from the next reset on: one where all are alike, ``None`` where they are drawn."""
        return self._given.given()

    def _shares(self, limits: str, left: str) -> np.ndarray:
        if not self._limited:
            return self._given.values()
        most = find_in_vector(self.env, limits)
        return find_in_vector(self.env, left) / most if self._what == "remaining" else np.minimum(most / self._scale, 1)

    def set_budget(self, budget: float | Sequence[float] | np.ndarray | None, mask: np.ndarray | None = None) -> None:
        """Set the budget from the next reset on: one, or ``(n,)``, for all or where ``mask`` is, ``(n,)`` booleans.

        Raises:
            ConfigError: it is out of bounds, or of another length.
        """
        give = find_in_vector(self.env, "set_budget") if self._limited else self._given.give
        give(budget, mask)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; ``options["budget"]``, one or ``(n,)``, which is passed on too, is ``set_budget`` of what is reset."""
        options, mask = reset_mask(options)
        if not self._limited and options is not None and "budget" in options:
            self.set_budget(options["budget"], mask)
        obs, infos = was_reset(self.env, seed, options)
        self._given.begin(mask, seed)
        self._ended[slice(None) if mask is None else mask] = False
        return self.observations(obs), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and add the budgets as they are after this step."""
        obs, rewards, terminations, truncations, infos = stepped(self.env, actions)
        before, self._ended = self._ended, np.logical_or(terminations, truncations)
        starts = {NEXT_STEP: before, SAME_STEP: self._ended}.get(self._mode)
        if starts is not None and np.count_nonzero(starts):
            if "final_obs" in infos:
                infos = self._with_final(infos)
            self._given.begin(starts, None)
        return self.observations(obs), rewards, terminations, truncations, infos

    def _with_final(self, infos: dict[str, Any]) -> dict[str, Any]:
        final = infos["final_obs"].copy()
        last = self._shares("last_limits", "last_remaining").astype(np.float32)[:, None]
        dtype = self.single_observation_space.dtype
        add = partial(flat_with, dtype=dtype) if self._flatten else partial(nested_with, key=self._key)
        for row in np.flatnonzero(self._ended):
            final[row] = add(self._single, final[row], last[row])
        return {**infos, "final_obs": final}

    def observations(self, observations: Any) -> Any:
        """Return a batch of observations with the budgets."""
        shares = self.budget.astype(np.float32)[:, None]
        if not self._flatten:
            return nested_with(self._single, observations, shares, self._key)
        flat = flat_batch(self._single, self.env.observation_space, observations)
        return np.concatenate([flat, shares], axis=1, dtype=self.single_observation_space.dtype, casting="unsafe")


class GivenShares:
    """A share that is given or drawn for each of ``n`` environments; see ``GivenShare``."""

    def __init__(self, n: int, draw: Any) -> None:
        self._rows = [GivenShare(draw) for _ in range(n)]

    def values(self) -> np.ndarray:
        """Return those of the running episodes, ``(n,)``."""
        return np.array([row.value for row in self._rows])

    def given(self) -> float | list[float | None] | None:
        """Return what each environment was told last, ``None`` where its share is drawn; one where all are alike."""
        given = [row.given for row in self._rows]
        return given[0] if len(set(given)) == 1 else given

    def give(self, budget: Any, mask: np.ndarray | None) -> None:
        """Have one share, or each its own, from the next episode on where ``mask`` is, everywhere for ``None``."""
        shares = zip(self._rows, for_each(budget, len(self._rows)), self._masked(mask), strict=True)
        # All are looked at before the first is given: a call that raises changes nothing.
        checked = [(row, None if share is None else checked_share(share)) for row, share, given in shares if given]
        for row, share in checked:
            row.give(share)

    def begin(self, mask: np.ndarray | None, seed: Any) -> None:
        """Start episodes where ``mask`` is, everywhere for ``None``, seeded as Gymnasium seeds environments."""
        seeds = (
            seed if isinstance(seed, Sequence) else [None if seed is None else seed + i for i in range(len(self._rows))]
        )
        for row, row_seed, begins in zip(self._rows, seeds, self._masked(mask), strict=True):
            if begins:
                row.begin(row_seed)

    def _masked(self, mask: np.ndarray | None) -> Sequence[bool]:
        return [True] * len(self._rows) if mask is None else np.asarray(mask, bool).tolist()


def flat_batch(single: spaces.Space, batch: spaces.Space, observations: Any) -> np.ndarray:
    """Return a batch of observations flattened, ``(n, D)``; Boxes as a whole, other spaces row by row."""
    if isinstance(single, spaces.Box):
        return as_numpy(observations).astype(single.dtype, copy=False).reshape(len(observations), -1)
    return np.stack([spaces.flatten(single, row) for row in iterate(batch, observations)])


def for_each(value: Any, n: int) -> list[Any]:
    """Return ``value`` for each of ``n`` environments: the same, or the elements of a sequence.

    Raises:
        ConfigError: a sequence of another length.
    """
    if np.ndim(value) == 0:
        return [value] * n
    if len(value) != n:
        raise ConfigError(f"Budgets {value!r}; expected one number for all, or one for each of {n} environments.")
    return list(value)


__all__ = ["BudgetAwareObservation", "for_each"]
