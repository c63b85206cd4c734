"""Callbacks: what happens beside training, in one place and at no cost to the steps in between.

``on_step`` runs after every environment step, so it does nothing but compare integers until something is due.
``agents.runs.monitors`` has those that evaluate, log, film and save.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import VectorEnv

from budget_wrappers.arguments import a_count, a_number
from budget_wrappers.errors import ConfigError

GRACE = 1_000
"""Environment steps that an episode has to end once training was asked to stop."""


class Callback:
    """Base of callbacks; every method may be left as it is.

    Attributes:
        last: whether it runs after all others, as one that saves what they did must.
    """

    last: ClassVar[bool] = False

    def on_training_start(self, agent: Any) -> None:
        """Run once, before the first step of ``learn``."""

    def on_step(self, agent: Any) -> bool:
        """Run after every step of the loop and the episodes that it ended; ``False`` stops training."""
        return True

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        """Run for every finished episode: ``return``, ``length`` and, where wrappers report it, ``compute``."""

    def on_training_end(self, agent: Any) -> None:
        """Run once, after the last step, also when training failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on to the same numbers, as JSON-able data."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""


class CallbackList(Callback):
    """Several callbacks in order, those that must see what the others did (``last``) at the end.

    Args:
        callbacks: in the order in which they run.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = sorted(callbacks, key=lambda callback: callback.last)

    def on_training_start(self, agent: Any) -> None:
        for callback in self.callbacks:
            callback.on_training_start(agent)

    def on_step(self, agent: Any) -> bool:
        keep_on = True
        for callback in self.callbacks:
            keep_on = callback.on_step(agent) and keep_on
        return keep_on

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        for callback in self.callbacks:
            callback.on_episode_end(agent, episode)

    def on_training_end(self, agent: Any) -> None:
        for callback in self.callbacks:
            callback.on_training_end(agent)

    def state_dict(self) -> dict[str, Any]:
        return state_of(self.callbacks)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self.callbacks, state)


def state_of(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """Return the state of each callback under its class name and place."""
    return {f"{type(callback).__name__}.{place}": callback.state_dict() for place, callback in enumerate(callbacks)}


def load_state_of(callbacks: Sequence[Callback], state: dict[str, Any]) -> None:
    """Give each callback its entry of ``state``; one that has none begins anew."""
    for place, callback in enumerate(callbacks):
        entry = state.get(f"{type(callback).__name__}.{place}")
        if entry is not None:
            callback.load_state_dict(entry)


def resumable_anywhere(agent: Any) -> bool:
    """Return whether any step will do to save a run at: offline, or with episodes that all restart there."""
    return agent.offline or isinstance(agent.env, VectorEnv)


class FunctionCallback(Callback):
    """A plain function of the agent, run after every step; returning ``False`` stops training.

    Args:
        function: called with the agent.
    """

    def __init__(self, function: Callable[[Any], bool | None]) -> None:
        self.function = function

    def on_step(self, agent: Any) -> bool:
        return self.function(agent) is not False


def callbacks_of(callback: Any, progress_bar: bool = False, total: int = 0) -> CallbackList:
    """Return one callback for what ``learn`` was given.

    Args:
        callback: ``None``, a callback, a function of the agent, or a list of these.
        progress_bar: add a ``ProgressBar``.
        total: environment steps of this call of ``learn``, for the bar.

    Raises:
        ConfigError: something else.
    """
    given = [] if callback is None else callback if isinstance(callback, list | tuple) else [callback]
    callbacks = []
    for one in given:
        if isinstance(one, Callback):
            callbacks.append(one)
        elif callable(one):
            callbacks.append(FunctionCallback(one))
        else:
            raise ConfigError(
                f"callback={one!r}: expected None, a Callback, a function of the agent or a list of these; "
                "derive from agents.loop.callbacks.Callback"
            )
    return CallbackList([*callbacks, ProgressBar(total)] if progress_bar else callbacks)


class Every:
    """The next multiple of ``every`` steps; the same in a run that was resumed.

    Args:
        every: environment steps between two events, at least 1.
    """

    __slots__ = ("due", "every")

    def __init__(self, every: int) -> None:
        self.every = self.due = a_count("every", every, 1)

    def restart(self, steps: int) -> None:
        """Set the next event to the first multiple after ``steps``."""
        self.due = (steps // self.every + 1) * self.every


class ProgressBar(Callback):
    """A bar with steps per second and the mean return of the last ten episodes; silent without a terminal.

    Args:
        total: environment steps of the run.
        silent: show nothing; by default where standard error is no terminal.
    """

    stride = 20
    """Steps between two looks at the bar, which itself draws at most ten times a second."""

    def __init__(self, total: int, silent: bool | None = None) -> None:
        self.total, self.silent = total, silent
        self.returns: list[float] = []

    def on_training_start(self, agent: Any) -> None:
        from tqdm import tqdm

        done = agent.num_timesteps
        # miniters: tqdm would wait for as many steps again as its first update had, which may be thousands.
        settings = {"unit": "step", "dynamic_ncols": True, "disable": self.silent, "miniters": 1}
        self.bar = tqdm(initial=done, total=done + self.total, **settings)
        self.shown = done

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps >= self.shown + self.stride:
            self.show(agent.num_timesteps)
        return True

    def show(self, steps: int) -> None:
        """Move the bar to ``steps``."""
        self.bar.update(steps - self.shown)
        self.shown = steps

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.returns = [*self.returns[-9:], episode["return"]]
        self.bar.set_postfix({"return": f"{np.mean(self.returns):.1f}"}, refresh=False)

    def on_training_end(self, agent: Any) -> None:
        self.show(agent.num_timesteps)
        self.bar.close()


class StopOnReturn(Callback):
    """Stops training once the mean return of the last ``episodes`` episodes reaches ``threshold``.

    Args:
        threshold: mean return, undiscounted, as the environment pays it (penalties included).
        episodes: that the mean is taken over.
    """

    def __init__(self, threshold: float, episodes: int = 10) -> None:
        self.threshold, self.episodes = a_number("threshold", threshold), a_count("episodes", episodes, 1)
        self.returns: list[float] = []
        self.reached = False

    def on_step(self, agent: Any) -> bool:
        return not self.reached

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.returns = [*self.returns, episode["return"]][-self.episodes :]
        self.reached = len(self.returns) == self.episodes and float(np.mean(self.returns)) >= self.threshold

    def state_dict(self) -> dict[str, Any]:
        return {"returns": self.returns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns = list(state["returns"])


class StopWhen(Callback):
    """Stops training at the next point where it can be resumed exactly, once ``stop`` was called.

    For signal handlers: a handler may only set a flag, as it runs in the middle of anything.

    Args:
        grace: environment steps that the running episode has to end. After them training stops within the episode.
    """

    def __init__(self, grace: int = GRACE) -> None:
        self.grace = grace
        self.reason: int | None = None
        self.at_end = False
        self.latest: int | None = None

    @property
    def asked(self) -> bool:
        """Whether ``stop`` was called."""
        return self.reason is not None

    def stop(self, reason: int = 0) -> None:
        """Ask training to stop at the end of the running episode; a vector or offline run: of the running step.

        Args:
            reason: for the caller of ``learn``, such as a signal's number; the first one is kept.
        """
        self.reason = reason if self.reason is None else self.reason

    def on_training_start(self, agent: Any) -> None:
        self.anywhere, self.at_end, self.latest = resumable_anywhere(agent), False, None

    def on_step(self, agent: Any) -> bool:
        at_end, self.at_end = self.at_end, False
        if self.reason is None:
            return True
        if self.latest is None:
            self.latest = agent.num_timesteps + self.grace
        return not (at_end or self.anywhere or agent.num_timesteps >= self.latest)

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.at_end = True
