"""What older versions of Gymnasium lack, so that the tests run with each that the package supports, 1.0 to newest."""

from collections.abc import Callable
from enum import Enum
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

try:
    from gymnasium.vector import AutoresetMode
except ImportError:  # before 1.1

    class AutoresetMode(Enum):  # type: ignore[no-redef]
        """Its modes, of which the first is the only one there."""

        NEXT_STEP = "NextStep"
        SAME_STEP = "SameStep"
        DISABLED = "Disabled"


try:
    from gymnasium.wrappers import RepeatAction
except ImportError:  # before 1.3

    class RepeatAction(gym.Wrapper, RecordConstructorArgs):  # type: ignore[no-redef]
        """Steps several times with one action and adds the rewards."""

        def __init__(self, env: gym.Env, num_repeats: int) -> None:
            RecordConstructorArgs.__init__(self, num_repeats=num_repeats)
            gym.Wrapper.__init__(self, env)
            self._repeats = num_repeats

        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            total = 0.0
            for _ in range(self._repeats):
                observation, reward, terminated, truncated, info = self.env.step(action)
                total += reward
                if terminated or truncated:
                    break
            return observation, total, terminated, truncated, info


VERSION = tuple(map(int, gym.__version__.split(".")[:2]))
HAS_MODES = HAS_MASKS = hasattr(gym.vector, "AutoresetMode")
"""Whether vector environments have several autoreset modes, and masks of what to reset: from 1.1 on."""

needs_masks = pytest.mark.skipif(not HAS_MASKS, reason="Gymnasium 1.0 resets no environments by a mask")


def mode_arguments(mode: str | AutoresetMode) -> dict[str, Any]:
    """Return the arguments that make a vector environment in ``mode``; skips the test where that mode is unknown."""
    if HAS_MODES:
        return {"autoreset_mode": AutoresetMode(mode)}
    if AutoresetMode(mode) is not AutoresetMode.NEXT_STEP:
        pytest.skip("Gymnasium 1.0 resets in the next step only")
    return {}


def sync(functions: list[Callable[[], gym.Env]], mode: str | AutoresetMode, **arguments: Any) -> VectorEnv:
    """Return environments in this process."""
    return SyncVectorEnv(functions, **arguments, **mode_arguments(mode))


def asynchronous(functions: list[Callable[[], gym.Env]], mode: str | AutoresetMode, **arguments: Any) -> VectorEnv:
    """Return environments in workers."""
    return AsyncVectorEnv(functions, **arguments, **mode_arguments(mode))
