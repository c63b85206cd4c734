"""Callbacks that watch a run: they evaluate, log, film and save it.

Whatever they do with the agent leaves its generators and its account as they were, so a run that is watched ends with
the same weights as one that is not.
"""

import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agents.loop.callbacks import GRACE, Callback, Every, StopWhen, resumable_anywhere, state_of
from agents.loop.checkpoint import save_agent
from agents.loop.divergence import require_converging, require_finite_metrics
from agents.loop.evaluate import EVALUATION_SEED, evaluate_policy, undisturbed
from agents.report.video import record_episode
from agents.runs.log import RunFolder
from agents.runs.wrapper_states import kept_states
from budget_wrappers.arguments import a_count, a_flag, an_instance
from budget_wrappers.files import replacing

BOUNDARY = "boundary.safetensors"
"""In a run folder whose checkpoint lies within an episode: the last one that lies at an episode's end."""
LONG = 10
"""Checkpoints that may be left out while one episode runs."""
LONG_EVALUATION = 10_000
"""Steps of an evaluation's episode after which a user is told."""
REMEDY = "pass --max-episode-steps (max_episode_steps=… of RunConfig), so that episodes end"


class Log(Callback):
    """Writes a row of metrics every ``every`` steps: losses, returns of the episodes since, FLOPs, and the clock.

    Args:
        log: the run folder.
        every: environment steps between two rows.
    """

    def __init__(self, log: RunFolder, every: int = 1000) -> None:
        self.log, self.clock = log, Every(every)
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.compute: list[dict[str, float]] = []

    def on_training_start(self, agent: Any) -> None:
        self.clock.restart(agent.num_timesteps)
        self.since, self.from_step = time.perf_counter(), agent.num_timesteps

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps >= self.clock.due:
            self.clock.restart(agent.num_timesteps)
            self.write(agent)
        return True

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.returns.append(episode["return"])
        self.lengths.append(episode["length"])
        report = episode.get("compute", {})
        self.compute.append({key: float(value) for key, value in report.items() if np.isscalar(value)})

    def on_training_end(self, agent: Any) -> None:
        self.log.flush()

    def write(self, agent: Any) -> None:
        """Write a row now."""
        now = time.perf_counter()
        row: dict[str, Any] = {
            "kind": "training",
            "step": agent.num_timesteps,
            "updates": agent.num_updates,
            "episodes": agent.num_episodes,
            "flops_act": int(agent.meter.totals["act"]),
            "flops_learn": int(agent.meter.totals["learn"]),
        }
        if self.returns:
            row |= {"return": float(np.mean(self.returns)), "length": float(np.mean(self.lengths))}
            keys = set.intersection(*(set(report) for report in self.compute))
            row |= {f"compute/{key}": float(np.mean([r[key] for r in self.compute])) for key in sorted(keys)}
        losses = {name: float(value) for name, value in agent.logged().items()}
        require_finite_metrics(agent, losses)
        row |= {f"loss/{name}": value for name, value in losses.items()}
        seconds = now - self.since
        rate = (agent.num_timesteps - self.from_step) / seconds if seconds > 0 else 0.0
        self.log.write(row, seconds=seconds, steps_per_second=rate)
        self.returns, self.lengths, self.compute = [], [], []
        self.since, self.from_step = now, agent.num_timesteps

    def state_dict(self) -> dict[str, Any]:
        return {"returns": self.returns, "lengths": self.lengths, "compute": self.compute}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns, self.lengths = list(state["returns"]), list(state["lengths"])
        self.compute = [dict(report) for report in state["compute"]]


class Evaluate(Callback):
    """Evaluates the deterministic policy every ``every`` steps, on the same seeded episodes each time.

    Training is not disturbed: the agent's generators are put back, and what the evaluation cost is not charged to
    the training's account.

    Args:
        env: an environment of its own.
        every: environment steps between two evaluations.
        episodes: of one evaluation.
        seed: of the first episode; episode ``i`` is reset with ``seed + i``.
        best: file that the agent is saved to whenever its mean return is the highest yet.
        log: run folder whose metrics get a row for each evaluation.
        stop: once it was asked, an evaluation that takes more than its ``grace`` of steps is given up.

    Attributes:
        curve: ``{"step", "return", "return_std", "flops_per_step", …}`` of each evaluation so far.
        best_return: the highest mean return yet, ``None`` before the first.
        given_up: whether an evaluation was given up; a run that is saved then lacks it.
    """

    def __init__(
        self,
        env: gym.Env,
        every: int,
        episodes: int = 5,
        seed: int = EVALUATION_SEED,
        best: str | Path | None = None,
        log: RunFolder | None = None,
        stop: StopWhen | None = None,
    ) -> None:
        an_instance("env", env, gym.Env, "a Gymnasium environment of its own")
        a_count("episodes", episodes, 1)
        a_count("seed", seed)
        self.env, self.episodes, self.seed, self.best, self.log = env, episodes, seed, best, log
        self.stop, self.given_up = stop or StopWhen(), False
        self.clock = Every(every)
        self.curve: list[dict[str, Any]] = []
        self.best_return: float | None = None

    def on_training_start(self, agent: Any) -> None:
        self.clock.restart(agent.num_timesteps)

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps >= self.clock.due and not self.given_up:
            self.clock.restart(agent.num_timesteps)
            self.evaluate(agent)
        return True

    def evaluate(self, agent: Any) -> None:
        """Evaluate now.

        Raises:
            NonFiniteError: training has diverged.
        """
        before, self.waited = time.perf_counter(), 0
        require_converging(agent)
        try:
            with undisturbed(agent, self.env):
                result = evaluate_policy(agent, self.env, self.episodes, self.seed, on_step=self._look)
        except _GivenUpError:
            self.given_up = True
            return
        point = {"step": agent.num_timesteps, **result.summary(), **agent.spending(result.shares)}
        self.curve.append(point)
        if self.log is not None:
            self.log.write({**point, "kind": "evaluation"}, seconds=time.perf_counter() - before)
        if self.best_return is None or result.mean > self.best_return:
            self.best_return = result.mean
            if self.best is not None:
                run = {} if self.log is None else {"run": self.log.config.get("run", {})}
                save_agent(agent, self.best, extra={**run, **kept_states(agent.env)})

    def _look(self, length: int) -> None:
        """Give up an evaluation that keeps training from stopping; warn of one that may never end."""
        if self.stop.asked:
            self.waited += 1
            if self.waited > self.stop.grace:
                raise _GivenUpError
        if length == LONG_EVALUATION:
            warnings.warn(f"an episode of the evaluation has run for {length:,} steps: {REMEDY}", stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve, "best_return": self.best_return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.curve, self.best_return = list(state["curve"]), state["best_return"]


class _GivenUpError(Exception):
    """An evaluation was given up."""


class RecordVideo(Callback):
    """Films one episode of the deterministic policy every ``every`` steps; see ``agents.report.video``.

    Args:
        env: an environment of its own, made with ``render_mode="rgb_array"``.
        folder: that gets ``step-<n>.gif``.
        every: environment steps between two films.
        seed: of the filmed episode.
    """

    def __init__(self, env: gym.Env, folder: str | Path, every: int, seed: int = EVALUATION_SEED) -> None:
        self.env, self.folder, self.seed = env, Path(folder), seed
        self.clock = Every(every)

    def on_training_start(self, agent: Any) -> None:
        self.clock.restart(agent.num_timesteps)

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps >= self.clock.due:
            self.clock.restart(agent.num_timesteps)
            with undisturbed(agent, self.env):
                record_episode(agent, self.env, self.folder / f"step-{agent.num_timesteps}.gif", self.seed)
        return True


class Checkpoint(Callback):
    """Saves the agent, replay included, at the first episode end after every ``every`` steps.

    There a run can be resumed exactly: nothing of an environment needs to be stored, as the next episode is reset
    with a seed from the agent's generator. A vector environment has no common episode end, so it is saved at the
    step itself and all its episodes restart. An offline agent is saved at the update itself.

    Three kinds of checkpoints lie elsewhere, *within an episode*: that of a run which has taken all its steps, or was
    interrupted and did not reach an episode's end in time; that of a vector run which has ended; and where no time
    limit ends episodes, one is made each ``every`` steps once an episode has run for ``LONG`` times as many. A run that
    goes on from there begins a new episode, so its numbers are others than those of a run that never stopped. Where
    there is an exact checkpoint from before, it is therefore kept beside the last one, and trained on from.

    Args:
        path: of the file; each save replaces the last one, whole or not at all.
        every: environment steps between two saves.
        alongside: callbacks whose state is stored, in the order in which a resumed run lists them.
        log: run folder whose metrics a resumed run cuts back to what was written by now.
        replay: store the replay; without it a resumed run learns on, but not to the same numbers.

    Attributes:
        exact: whether the last step of training is one where the run can be resumed exactly.
        saved_exactly: whether the file at ``path`` is of such a step.
    """

    last = True

    def __init__(
        self,
        path: str | Path,
        every: int,
        alongside: Sequence[Callback] = (),
        log: RunFolder | None = None,
        replay: bool = True,
    ) -> None:
        self.path, self.alongside, self.log, self.replay = Path(path), alongside, log, a_flag("replay", replay)
        self.boundary = self.path.with_name(BOUNDARY)
        self.clock = Every(every)
        self.ended: int | None = None
        self.exact, self.saved_exactly, self.warned = False, False, False

    def on_training_start(self, agent: Any) -> None:
        self.clock.restart(agent.num_timesteps)
        self.anywhere, self.ended = resumable_anywhere(agent), None
        self.limited = self.anywhere or has_time_limit(agent.env)
        self.long = max(LONG * self.clock.every, GRACE)

    def on_step(self, agent: Any) -> bool:
        given_up = any(getattr(callback, "given_up", False) for callback in self.alongside)
        ended, self.ended = self.ended, None
        self.exact = (ended is not None and not self.anywhere) or agent.offline
        self.exact &= not given_up
        due = agent.num_timesteps >= self.clock.due
        if not due and self.exact and ended is not None:
            # Perhaps the last episode that ends in this run: one that is trained further goes on from its end.
            due = 0 < agent.total_timesteps - agent.num_timesteps < ended
        if due and (self.exact or self.anywhere):
            self.clock.restart(agent.num_timesteps)
            self.exact = not given_up
            self.save(agent)
            if self.anywhere:
                agent.restart_episodes()
        elif due and agent.num_timesteps - self.clock.due >= self.long:
            self._within_an_episode(agent)
        return True

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.ended = episode["length"]

    def finish(self, agent: Any) -> None:
        """Save at the end of training, wherever that is, and keep the last exact checkpoint where this one is not."""
        if not self.exact and self.saved_exactly:
            with replacing(self.boundary) as partial:
                partial.unlink()
                try:
                    os.link(self.path, partial)
                except OSError:  # a file system without links
                    shutil.copyfile(self.path, partial)
        self.save(agent)
        if self.exact:
            self.forget_boundary()

    def save(self, agent: Any) -> None:
        """Save now."""
        extra: dict[str, Any] = {"callbacks": state_of(self.alongside), **kept_states(agent.env)}
        if self.log is not None:
            extra |= {"metrics_bytes": self.log.flush(), "run": self.log.config.get("run", {})}
        if not self.exact:
            extra["within_episode"] = True
        save_agent(agent, self.path, replay=self.replay, extra=extra)
        self.saved_exactly = self.exact

    def forget_boundary(self) -> None:
        """Delete the exact checkpoint beside the last one."""
        self.boundary.unlink(missing_ok=True)

    def _within_an_episode(self, agent: Any) -> None:
        """Save in the middle of an episode that may never end, or warn that nothing was saved."""
        overdue = agent.num_timesteps - self.clock.due
        if not self.limited:
            self.clock.restart(agent.num_timesteps)
            self.clock.due -= self.long  # the next one falls due as soon as if an episode had ended here
            self.save(agent)
            self.forget_boundary()
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"a checkpoint was due at step {agent.num_timesteps - overdue:,} and no episode has ended since: "
                + (
                    "nothing is saved before one does"
                    if self.limited
                    else "it was saved within the episode, so a run "
                    "resumed from it begins a new episode and has other numbers than one that never stopped"
                )
                + f"; {REMEDY}",
                stacklevel=2,
            )


def has_time_limit(env: Any) -> bool:
    """Return whether a wrapper of ``env`` ends episodes after a number of steps."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            return True
        env = env.env
    return False
