"""How many primitive steps an episode can still last: the least of everything that can end it."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, MaxAndSkipObservation, TimeLimit

from budget_wrappers.arguments import MOST_STEPS
from budget_wrappers.core import Chooser
from budget_wrappers.errors import ConfigError

REPEATS: dict[type[gym.Wrapper], str] = {MaxAndSkipObservation: "_skip", AtariPreprocessing: "frame_skip"}
"""Gymnasium's wrappers that step several times for one action, and the attribute that holds how often."""
if hasattr(gym.wrappers, "RepeatAction"):  # from 1.3 on
    REPEATS[gym.wrappers.RepeatAction] = "num_repeats"


@dataclass
class Clock:
    """A time limit of the stack; ``primitive`` primitive steps last ``own`` of its steps.

    Attributes:
        wrapper: the time limit.
        primitive, own: see above. A frame skip that is unknown is measured from the first step on.
        inside: whether it stands inside the layer whose steps are primitive.
    """

    wrapper: TimeLimit
    primitive: int
    own: int
    inside: bool
    _seen: int = 0

    @property
    def elapsed(self) -> int:
        """Steps of its own that it has counted in this episode."""
        return self.wrapper._elapsed_steps or 0

    def lasts(self, elapsed: int) -> int:
        """Return for how many primitive steps it lets an episode go on after ``elapsed`` steps of its own."""
        left = max(self.wrapper._max_episode_steps - elapsed, 0)
        return -(-left * self.primitive // self.own)

    def open_step(self) -> None:
        """Note where it stands before a step."""
        self._seen = self.elapsed

    def close_step(self, steps: int) -> None:
        """Measure what the primitive ``steps`` of a step that has succeeded were in its own."""
        own = self.elapsed - self._seen
        if self.inside and 0 < steps < own:
            self.primitive, self.own = steps, own


class Horizon:
    """The primitive steps that an episode can last.

    All time limits between ``env`` and the environment itself count, the environment's ``spec.max_episode_steps``, and
    ``horizon``. A time limit outside ``chooser`` counts decisions, each of which lasts the longest duration at most; a
    frame skip between a time limit and the primitive step makes several of one's steps for one of the other's.

    Args:
        env: what a limit wraps.
        chooser: the layer inside whose steps are primitive; None where those of ``env`` are.
        horizon: the caller's own bound, in primitive steps; None for no such bound.

    Attributes:
        most: primitive steps that an episode can last at most; None where nothing bounds them.

    Raises:
        ConfigError: ``horizon`` is not a whole number >= 1.
    """

    def __init__(self, env: gym.Env, chooser: Chooser | None, horizon: int | None) -> None:
        require_whole_horizon(horizon)
        inner: Any = env if chooser is None else getattr(chooser, "env", chooser)
        self._clocks: list[Clock] = []
        if chooser is not None:
            lasts = chooser.durations[-1]
            for layer in reversed(_layers(env, chooser)):
                if isinstance(layer, TimeLimit):
                    self._clocks.append(Clock(layer, lasts, 1, inside=False))
                lasts *= repeats(layer)
        makes = 1
        for layer in _layers(inner, None):
            if isinstance(layer, TimeLimit):
                self._clocks.append(Clock(layer, 1, makes, inside=True))
            makes *= repeats(layer)
        bounds = [clock.lasts(0) for clock in self._clocks]
        spec = getattr(getattr(inner, "unwrapped", None), "spec", None)
        if spec is not None and spec.max_episode_steps is not None:
            bounds.append(-(-spec.max_episode_steps // makes))
        if horizon is not None:
            bounds.append(horizon)
        self.most: int | None = min(bounds, default=None)

    def left(self, steps: int) -> int | None:
        """Return how many primitive steps may follow after ``steps`` of them; None where nothing bounds them."""
        if self.most is None:
            return None
        left = max(self.most - steps, 0)
        for clock in self._clocks:
            left = min(left, clock.lasts(clock.elapsed))
        return left

    def open_step(self) -> None:
        """Note where time limits stand before a step."""
        for clock in self._clocks:
            clock.open_step()

    def close_step(self, steps: int) -> None:
        """Take note of a step that has succeeded, of ``steps`` primitive steps."""
        for clock in self._clocks:
            clock.close_step(steps)


def repeats(layer: gym.Env) -> int:
    """Return how many steps of what it wraps one step of ``layer`` makes at most, as far as that is known."""
    return max((int(vars(layer).get(held, 1)) for kind, held in REPEATS.items() if isinstance(layer, kind)), default=1)


def require_whole_horizon(horizon: int | None) -> None:
    """Check a number of steps, or ``None`` for no such end; raises ConfigError."""
    if horizon is not None and (type(horizon) is not int or not 1 <= horizon <= MOST_STEPS):
        raise ConfigError(f"horizon={horizon!r}; expected a whole number of steps >= 1, and at most {MOST_STEPS}.")


def _layers(env: Any, end: Any) -> list[gym.Wrapper]:
    """Return the wrappers of ``env``, the outermost first, up to ``end``."""
    found: list[gym.Wrapper] = []
    while isinstance(env, gym.Wrapper) and env is not end:
        found.append(env)
        env = env.env
    return found


__all__ = ["Horizon", "repeats", "require_whole_horizon"]
