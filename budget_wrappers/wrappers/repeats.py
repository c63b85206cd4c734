"""Finds out that a recorder sits inside what repeats actions, whose last info alone would be seen.

The policy acts once for all the steps that such a wrapper makes (``RepeatAction``, a frame skip): the first of them has
its cost, the others cost nothing. To whoever calls ``step`` by himself and holds an action that looks the same, and is
right. What differs is who calls: a ``step`` of an environment outside that has not returned in between, be it a wrapper
of Gymnasium's or PettingZoo's, for single environments or vectors, or one that merely holds the recorder. PettingZoo's
turns are not watched: after a step it is another agent's, so nobody repeats one.
"""

import sys
from types import FrameType
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import WrapperOrderError

OURS = "budget_wrappers."


class RepeatWatch:
    """Watches one recorder. It is told when the cost of a step differs from that of the step before, and no more.

    Between two such calls it keeps the frames of the ``step`` of environments outside: identities of frames that are
    gone would be used again.

    Args:
        kinds: classes whose ``step`` may repeat an action.
    """

    def __init__(self, kinds: tuple[type, ...] = (gym.Env, VectorEnv)) -> None:
        self._kinds = kinds
        self._armed, self._done = False, False
        self._frames: list[FrameType] = []

    def changed(self, recorder: Any, cost: float) -> None:
        """Note that a step cost another amount than the one before; called by the recorder's ``step`` itself.

        Args:
            recorder: whose step it was.
            cost: of this step, FLOPs, of all rows or agents together; only whether it is 0 matters.

        Raises:
            WrapperOrderError: an environment outside has made this step and the one before in a single ``step``.
        """
        if self._done or (cost and not self._armed):
            return
        frames = steps_outside(self._kinds)
        if cost:
            self._frames = frames
            return
        before, self._frames = self._frames, []
        for frame in frames:
            if any(frame is one for one in before):
                outside = frame.f_locals["self"]
                raise WrapperOrderError(
                    f"{type(outside).__name__} steps {type(recorder).__name__} several times for one action and hands "
                    "out the last info only, so the action's cost would be lost. Put it outside: "
                    f"{type(recorder).__name__}({type(outside).__name__}(env, …))."
                )
        # Nobody outside, or nobody who repeats: seen once, it stays so.
        self._done = not frames or self._armed
        self._armed = True

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without frames, which cannot be copied."""
        return {**self.__dict__, "_frames": []}


def steps_outside(kinds: tuple[type, ...]) -> list[FrameType]:
    """Return the running ``step`` calls of ``kinds`` outside the recorder; ours add up what they repeat."""
    frames, frame = [], sys._getframe(3)  # of whoever called the recorder's step
    while frame is not None:
        if frame.f_code.co_name == "step":
            owner = frame.f_locals.get("self")
            if isinstance(owner, kinds) and not type(owner).__module__.startswith(OURS):
                frames.append(frame)
        frame = frame.f_back
    return frames


__all__ = ["RepeatWatch"]
