"""Resets the environments of a batch whose episodes a wrapper has ended, where environments reset themselves.

An environment that would go on does not know that its episode is over, so the wrapper resets it, with a mask, in the
step in which its autoreset mode has it: at once (``SAME_STEP``), or in the step after (``NEXT_STEP``). That step passes
the environment by, as another step of it would draw from its random numbers. In mode ``DISABLED`` the caller resets,
and there is nothing to do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import iterate

from budget_wrappers.errors import ConfigError
from budget_wrappers.wrappers.vector.account import VectorAccount
from budget_wrappers.wrappers.vector.arrays import stepped, was_reset
from budget_wrappers.wrappers.vector.infos import FINAL_INFO, joined, only
from budget_wrappers.wrappers.vector.modes import DISABLED, RESET_MASK, SAME_STEP, find_in_vector

FINAL_OBS = "final_obs"
Transition = tuple[Any, Any, np.ndarray, np.ndarray, dict[str, Any]]


MASK_REMEDY = (
    "Make it with autoreset_mode=AutoresetMode.DISABLED and reset with options={'reset_mask': ended}, use gymnasium's "
    "SyncVectorEnv or AsyncVectorEnv (1.1 or newer), or put budget_wrappers.wrappers.ComputeLimit around each "
    "environment, around the policy's own choice there."
)


class EpisodeEnder:
    """Steps ``env`` and resets in it what was ended outside of it.

    Args:
        env: the vector environment inside the wrapper that ends episodes.
        mode: see ``autoreset_mode``.

    Raises:
        ConfigError: ``env`` resets its environments itself and takes no mask.
    """

    def __init__(self, env: VectorEnv, mode: str) -> None:
        if mode != DISABLED:
            require_masks(env, mode)
        self._env, self._mode = env, mode
        self._accounts: tuple[VectorAccount, ...] = find_in_vector(env, "compute_accounts", ())
        self._due: np.ndarray | None = None

    def forget(self, mask: np.ndarray | None) -> None:
        """Note that the caller has reset environments, ``(n,)`` or ``None`` for all."""
        if self._due is not None:
            self._due = None if mask is None else self._due & ~mask

    def step(self, actions: Any, stopped: np.ndarray | None = None) -> Transition:
        """Step; environments whose reset is due return what a step that only resets does.

        Where the step or the reset raises, the reset stays due.

        Args:
            actions: as ``env`` takes them.
            stopped: environments that are passed by, ``(n,)`` booleans, ``None`` for none: their last observation
                comes back. Only Gymnasium's own vector environments can do so; others step them, too.
        """
        due = self._due
        if due is None or not due.any():
            return self._step(actions, stopped)
        if self._mode == SAME_STEP:  # the reset at once has raised
            self._reset(due)
            self._due = None
            return self._step(actions, stopped)
        with idle(self._env.unwrapped, due if stopped is None else due | stopped):
            _, rewards, terminations, truncations, infos = stepped(self._env, actions)
        obs, reset_infos = self._reset(due)
        self._due = None
        for account in self._accounts:  # the step that was thrown away has ended nothing
            if account.ended is not None:
                account.ended = account.ended & ~due if (account.ended & ~due).any() else None
        rewards = np.where(due, np.zeros_like(rewards), rewards)
        return obs, rewards, terminations & ~due, truncations & ~due, joined(only(infos, ~due), reset_infos, due)

    def end(self, ended: np.ndarray, obs: Any, infos: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Note that the wrapper has ended episodes which the environments would go on with.

        Args:
            ended: where, ``(n,)``.
            obs: observations of the step that ended them.
            infos: of the same step.

        Returns:
            What the step hands out: in ``SAME_STEP`` mode the observations and infos of the resets, with the last ones
            of the episodes in ``infos["final_obs"]`` and ``infos["final_info"]``.
        """
        self._due = None if self._mode == DISABLED else ended
        if self._mode != SAME_STEP:
            return obs, infos
        n = len(ended)
        final_obs = infos[FINAL_OBS].copy() if FINAL_OBS in infos else np.full(n, None, object)
        for row, single in enumerate(iterate(self._env.observation_space, obs)):
            if ended[row]:
                final_obs[row] = deepcopy(single)
        last = only(
            {key: value for key, value in infos.items() if key.lstrip("_") not in (FINAL_INFO, FINAL_OBS)}, ended
        )
        nowhere = np.zeros(n, bool)
        final = {
            FINAL_OBS: final_obs,
            f"_{FINAL_OBS}": infos.get(f"_{FINAL_OBS}", nowhere) | ended,
            FINAL_INFO: joined(infos.get(FINAL_INFO, {}), last, ended),
            f"_{FINAL_INFO}": infos.get(f"_{FINAL_INFO}", nowhere) | ended,
        }
        obs, reset_infos = self._reset(ended)
        self._due = None
        return obs, {**joined(only(infos, ~ended), reset_infos, ended), **final}

    def _step(self, actions: Any, stopped: np.ndarray | None) -> Transition:
        envs = self._env.unwrapped
        if stopped is None or not isinstance(envs, SyncVectorEnv | AsyncVectorEnv):
            return stepped(self._env, actions)
        with idle(envs, stopped):
            return stepped(self._env, actions)

    def _reset(self, rows: np.ndarray) -> tuple[Any, dict[str, Any]]:
        with autoresetting(self._accounts):
            return was_reset(self._env, None, {RESET_MASK: rows.copy()})


class Idle:
    """Stands in for an environment that is about to be reset, or for the pipe to its worker: its step does nothing.

    Args:
        observation: that a step returns.
    """

    closed = False

    def __init__(self, observation: Any) -> None:
        self._transition = observation, 0.0, False, False, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return a transition in which nothing has happened."""
        return self._transition

    def send(self, message: Any) -> None:
        """Send no message: there is no worker."""

    def poll(self, timeout: float | None = None) -> bool:
        """Return True: the answer is there."""
        return True

    def recv(self) -> tuple[Any, bool]:
        """Return the transition, as a worker that has succeeded does."""
        return self._transition, True


@contextmanager
def idle(envs: SyncVectorEnv | AsyncVectorEnv, rows: np.ndarray) -> Iterator[None]:
    """While this lasts, a step of ``envs`` leaves the environments of ``rows``, ``(n,)`` booleans, as they are."""
    places, seen = (
        (envs.parent_pipes, "observations") if isinstance(envs, AsyncVectorEnv) else (envs.envs, "_observations")
    )
    observations = list(iterate(envs.observation_space, getattr(envs, seen)))
    kept = {row: places[row] for row in np.flatnonzero(rows)}
    for row in kept:
        places[row] = Idle(observations[row])
    try:
        yield
    finally:
        for row, place in kept.items():
            places[row] = place


@contextmanager
def autoresetting(accounts: Sequence[VectorAccount]) -> Iterator[None]:
    """While this lasts, resets with a mask leave the accounts as they are: these know already which episodes ended."""
    for account in accounts:
        account.autoresetting = True
    try:
        yield
    finally:
        for account in accounts:
            account.autoresetting = False


def require_masks(env: VectorEnv, mode: str) -> None:
    """Check that environments that reset themselves can be reset by a mask, too; raises ConfigError."""
    if hasattr(gym.vector, "AutoresetMode") and isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv):
        return
    if getattr(env.unwrapped, "takes_reset_mask", False):  # said by an adapter of another library's environments
        return
    raise ConfigError(
        f"ComputeLimit cannot end episodes in {env}, which resets its environments by itself (autoreset mode {mode}) "
        f"and takes no mask of those to reset besides. {getattr(env.unwrapped, 'reset_mask_remedy', MASK_REMEDY)}"
    )


__all__ = ["EpisodeEnder", "autoresetting", "require_masks"]
