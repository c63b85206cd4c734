"""Callbacks that watch a run: they evaluate, log, film and save it.

Whatever they do with the agent leaves its generators and its account as they were, so a run that is watched ends with
the same weights as one that is not.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agents.loop.callbacks import Callback, Every, resumable_anywhere, state_of
from agents.loop.checkpoint import save_agent
from agents.loop.divergence import require_converging, require_finite_metrics
from agents.loop.evaluate import EVALUATION_SEED, evaluate_policy, undisturbed
from agents.report.video import record_episode
from agents.runs.log import RunFolder
from budget_wrappers.arguments import a_count, a_flag, an_instance


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

    Attributes:
        curve: ``{"step", "return", "return_std", "flops_per_step", …}`` of each evaluation so far.
        best_return: the highest mean return yet, ``None`` before the first.
    """

    def __init__(
        self,
        env: gym.Env,
        every: int,
        episodes: int = 5,
        seed: int = EVALUATION_SEED,
        best: str | Path | None = None,
        log: RunFolder | None = None,
    ) -> None:
        an_instance("env", env, gym.Env, "a Gymnasium environment of its own")
        a_count("episodes", episodes, 1)
        a_count("seed", seed)
        self.env, self.episodes, self.seed, self.best, self.log = env, episodes, seed, best, log
        self.clock = Every(every)
        self.curve: list[dict[str, Any]] = []
        self.best_return: float | None = None

    def on_training_start(self, agent: Any) -> None:
        self.clock.restart(agent.num_timesteps)

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps >= self.clock.due:
            self.clock.restart(agent.num_timesteps)
            self.evaluate(agent)
        return True

    def evaluate(self, agent: Any) -> None:
        """Evaluate now.

        Raises:
            NonFiniteError: training has diverged.
        """
        before = time.perf_counter()
        require_converging(agent)
        with undisturbed(agent, self.env):
            result = evaluate_policy(agent, self.env, self.episodes, self.seed)
        point = {"step": agent.num_timesteps, **result.summary(), **agent.spending(result.shares)}
        self.curve.append(point)
        if self.log is not None:
            self.log.write({**point, "kind": "evaluation"}, seconds=time.perf_counter() - before)
        if self.best_return is None or result.mean > self.best_return:
            self.best_return = result.mean
            if self.best is not None:
                save_agent(agent, self.best, extra={} if self.log is None else {"run": self.log.config.get("run", {})})

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve, "best_return": self.best_return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.curve, self.best_return = list(state["curve"]), state["best_return"]


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

    Args:
        path: of the file; each save replaces the last one, whole or not at all.
        every: environment steps between two saves.
        alongside: callbacks whose state is stored, in the order in which a resumed run lists them.
        log: run folder whose metrics a resumed run cuts back to what was written by now.
        replay: store the replay; without it a resumed run learns on, but not to the same numbers.
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
        self.clock = Every(every)
        self.at_end = False

    def on_training_start(self, agent: Any) -> None:
        self.clock.restart(agent.num_timesteps)
        self.anywhere, self.at_end = resumable_anywhere(agent), False

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps >= self.clock.due and (self.at_end or self.anywhere):
            self.clock.restart(agent.num_timesteps)
            self.save(agent)
            if self.anywhere:
                agent.restart_episodes()
        self.at_end = False
        return True

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.at_end = True

    def save(self, agent: Any) -> None:
        """Save now."""
        extra: dict[str, Any] = {"callbacks": state_of(self.alongside)}
        if self.log is not None:
            extra |= {"metrics_bytes": self.log.flush(), "run": self.log.config.get("run", {})}
        save_agent(agent, self.path, replay=self.replay, extra=extra)
