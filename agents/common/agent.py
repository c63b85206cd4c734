"""The off-policy agent: what SAC, TD3, DQN, CQL and GAIL share, with the habits of Stable-Baselines3.

An agent adds its networks, how it explores, and ``update(batch)``. It knows nothing of budgets: it charges what its
actor costs to its meter and sees observations, rewards and losses.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from agents.common.buffers import Batch, ReplayBuffer
from agents.common.callbacks import Callback, callbacks_of
from agents.common.checkpoint import load_agent, save_agent
from agents.common.collect import RunningEpisodes, Step, collector_of
from agents.common.config import OffPolicyConfig
from agents.common.hindsight import HindsightReplay, goal_reward, goal_slices
from agents.common.interface import joined, meter_for, require_meter, require_same_spaces, require_spaces
from budget_wrappers.errors import NonFiniteError, SpaceError
from budget_wrappers.metering import ComputeMeter, count_flops


class OffPolicyAgent(ABC):
    """Base of the agents.

    Args:
        env: a Gymnasium environment or vector environment; ``None`` is for loading only.
        meter: the account that acting and learning are charged to. By default the one the environment's wrappers
            read (``RecordComputeStatistics`` and its kin), else one of the agent's own.
        parts: modules given instead of the textbook networks; each agent names the ones it takes.
        settings: keys of ``config_class``.

    Raises:
        ConfigError: an unknown key or a value out of bounds.
        SpaceError: spaces that the agent cannot use.
    """

    config_class: ClassVar[type[OffPolicyConfig]]
    discrete: ClassVar[bool] = False
    offline: ClassVar[bool] = False

    def __init__(self, env: gym.Env | VectorEnv, *, meter: ComputeMeter | str | None = None, **settings: Any) -> None:
        self.config = self.config_class.of(settings)
        self.env, self.meter = env, meter_for(env, meter)
        vector = isinstance(env, VectorEnv)
        self.observation_space = env.single_observation_space if vector else env.observation_space
        self.action_space = env.single_action_space if vector else env.action_space
        require_spaces(type(self).__name__, self.observation_space, self.action_space, self.discrete)
        self.device = torch.device(self.config.device)
        self.num_timesteps, self.num_rounds, self.num_updates, self.num_episodes = 0, 0, 0, 0
        self.total_timesteps = 0
        self.metrics: dict[str, Tensor] = {}
        self.rng = np.random.default_rng(self.config.seed)
        self.generator = torch.Generator(self.device).manual_seed(self.config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.build()
        self.replay = self.make_replay()
        self._restart = False
        self._start_metering()

    # ---- what an agent adds -------------------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> None:
        """Make networks and optimizers."""

    @property
    @abstractmethod
    def actor(self) -> nn.Module:
        """The module that acts: the one that is metered."""

    @property
    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, for checkpoints."""

    @property
    @abstractmethod
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Every optimizer, for checkpoints."""

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one gradient step of every part on ``batch`` and return what to log."""

    @abstractmethod
    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return the action of each row of ``observation`` ``(n, *O)``, as it is stored in the replay."""

    def explore(self, observation: np.ndarray) -> np.ndarray:
        """Return the actions that training takes; random ones before ``learning_starts``."""
        early = self.num_timesteps < self.config.learning_starts
        return self.random_action(len(observation)) if early else self.act(observation, deterministic=False)

    def after_step(self) -> None:
        """Do what is due once a round of the loop (one step of every environment), before any update."""

    def update_kind(self) -> str:
        """Return a name for the work that the next update does; updates of one kind cost the same."""
        return "update"

    def logged(self) -> dict[str, Tensor]:
        """Return what is logged now: of the last update, and what is read off the agent only when asked."""
        return self.metrics

    def spending(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return what steps shared like ``Evaluation.shares`` cost in the agent's own terms; nothing for most."""
        return {}

    def plain_state(self) -> dict[str, Any]:
        """Return further state for checkpoints, as JSON-able data."""
        return {}

    def load_plain_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``plain_state`` returned."""

    # ---- using an agent -----------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        callback: Callback | list[Callback] | Callable[[Self], bool | None] | None = None,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` more environment steps.

        Every episode of a single environment is reset with a seed drawn from the agent's own generator, so a run
        that is loaded from a checkpoint, which falls on an episode's end, goes on to the same numbers.

        Args:
            total_timesteps: environment steps (of all environments of a vector one).
            callback: one or more callbacks, or a function of the agent that stops training by returning ``False``.
            progress_bar: show one.

        Raises:
            NonFiniteError: NaN or infinity in an observation or reward; nothing of that step is stored.
        """
        callbacks = callbacks_of(callback, progress_bar, total_timesteps)
        collector, end = self.collector(), self.num_timesteps + total_timesteps
        self.total_timesteps = end
        episodes = RunningEpisodes(collector.num_envs)
        callbacks.on_training_start(self)
        try:
            self._reset(collector)
            while self.num_timesteps < end:
                action = self.explore(collector.observation)
                step = collector.step(action, self.to_env_action(action))
                self.num_timesteps += len(step.streams)
                self.store(step)
                self.num_rounds += 1
                self.after_step()
                if self.num_rounds % self.config.train_freq == 0 and self.num_timesteps > self.config.learning_starts:
                    self.train(self.config.updates_of_round(collector.num_envs))
                over = self.finished_episodes(step, episodes)
                for episode in over:
                    self.num_episodes += 1
                    callbacks.on_episode_end(self, episode)
                # After the episodes: what saves or stops in on_step sees a step that is complete.
                if not callbacks.on_step(self):
                    break
                if self._restart or (over and collector.num_envs == 1 and self.num_timesteps < end):
                    self._reset(collector)
                    episodes.restart()
        finally:
            callbacks.on_training_end(self)
        return self

    def predict(
        self,
        observation: np.ndarray | Mapping[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Return the action for one observation or a batch of them, and ``state`` unchanged.

        Raises:
            SpaceError: an observation of another shape than the space's.
            NonFiniteError: an observation with NaN or infinity.
        """
        rows, batched = self.observation_rows(observation)
        action = self.to_env_action(self.act(rows, deterministic))
        return (action if batched else action[0]), state

    def observation_rows(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Return ``observation`` as rows ``(n, *O)``, and whether it was a batch.

        Raises:
            SpaceError: a shape other than the space's.
            NonFiniteError: NaN or infinity.
        """
        array = self.to_array(observation)
        shape = self.observation_shape
        batched = array.ndim == len(shape) + 1
        if array.shape[-len(shape) :] != shape or array.ndim > len(shape) + 1:
            raise SpaceError(
                f"an observation of shape {array.shape}: expected {shape} or (n, {', '.join(map(str, shape))}); "
                "pass what env.reset and env.step return"
            )
        if not np.isfinite(array).all():
            raise NonFiniteError(f"the observation {array!r} is not finite: expected finite numbers; mend its source")
        return (array if batched else array[None]), batched

    def save(self, path: str | Path, replay: bool = False) -> None:
        """Write the agent to ``path``, whole or not at all: networks, optimizers, generators and counters.

        Args:
            path: of the file, ``.safetensors`` is added where it has no suffix.
            replay: also write the replay, which resuming exactly needs.
        """
        save_agent(self, path, replay)

    @classmethod
    def load(
        cls, path: str | Path, env: gym.Env | VectorEnv | None, meter: ComputeMeter | str | None = None, **parts: Any
    ) -> Self:
        """Return the agent that ``save`` wrote.

        Args:
            path: of the file.
            env: to act and train in; ``None`` for an agent that only predicts.
            meter: see the class.
            parts: the modules that the saved agent was given, by name.

        Raises:
            CheckpointError: a file that is truncated, foreign, of another agent or for other spaces or networks.
        """
        return load_agent(cls, path, env, meter, **parts)

    def set_env(self, env: gym.Env | VectorEnv) -> None:
        """Train on ``env`` from now on.

        Raises:
            SpaceError: other spaces than the agent was made for.
            MeterError: wrappers that read another meter than the agent's.
        """
        require_same_spaces(env, self.observation_space, self.action_space)
        require_meter(env, self.meter)
        self.env = env

    def restart_episodes(self) -> None:
        """Reset every environment, seeded, before the next step; a vector run does so after each checkpoint."""
        self._restart = True

    # ---- parts of the loop --------------------------------------------------------------------------------------

    def train(self, updates: int) -> None:
        """Take ``updates`` gradient steps on samples of the replay."""
        scale = self.config.reward_scale
        for _ in range(updates):
            if len(self.replay) == 0:
                return  # hindsight needs a finished episode
            batch = self.replay.sample(self.config.batch_size, self.generator)
            batch = batch._replace(reward=batch.reward * scale) if scale != 1 else batch
            with self.meter.phase("learn", key=(id(self), self.update_kind())):
                self.metrics |= self.update(batch)
            self.num_updates += 1

    def store(self, step: Step) -> None:
        """Put one step's transitions into the replay."""
        s = step
        self.replay.add(s.observation, s.action, s.reward, s.next_observation, s.terminated, s.truncated, s.streams)

    def collector(self) -> Any:
        """Return what steps the environment; an agent that acts through wrappers of its own overrides it."""
        return collector_of(self.env, self.to_array)

    def finished_episodes(self, step: Step, running: RunningEpisodes) -> list[dict[str, Any]]:
        """Return what callbacks are told of each episode that ``step`` ended: return, length, the wrappers' report."""
        return running.finished_by(step)

    def _reset(self, collector: Any) -> None:
        collector.reset(int(self.rng.integers(2**31)))
        self.replay.forget_unfinished()
        self._restart = False

    # ---- spaces and metering ------------------------------------------------------------------------------------

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation as the networks see it: a dictionary's entries are joined, in its order."""
        if isinstance(self.observation_space, spaces.Dict):
            return (sum(part.shape[0] for part in self.observation_space.values()),)
        return self.observation_space.shape

    def to_array(self, observation: Any) -> np.ndarray:
        """Return a float32 copy of ``observation``, one or a batch, as the networks see it.

        Raises:
            SpaceError: a dictionary that lacks an entry of the space, or what is no array of numbers.
        """
        if isinstance(self.observation_space, spaces.Dict):
            return joined(observation, list(self.observation_space))
        try:
            return np.array(observation, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise SpaceError(
                f"an observation {observation!r} ({error}): expected numbers of shape {self.observation_shape}; pass "
                "what env.reset and env.step return"
            ) from error

    def make_replay(self) -> ReplayBuffer:
        """Return an empty replay for the agent's spaces."""
        config = self.config
        action_shape = () if self.discrete else self.action_space.shape
        settings = {"discrete": self.discrete, "gamma": config.gamma, "device": config.device}
        shapes = config.buffer_size, self.observation_shape, action_shape
        if config.hindsight:
            goals = goal_slices(self.observation_space, config.n_step)
            return HindsightReplay(*shapes, goals, goal_reward(self.env), config.hindsight, **settings)
        return ReplayBuffer(*shapes, n_step=config.n_step, **settings)

    def random_action(self, rows: int) -> np.ndarray:
        """Return uniformly random actions as the replay stores them."""
        if self.discrete:
            return self.rng.integers(self.action_space.n, size=rows)
        return self.rng.uniform(-1.0, 1.0, (rows, *self.action_space.shape)).astype(np.float32)

    def to_env_action(self, action: np.ndarray) -> np.ndarray:
        """Return the environment's actions for actions as the replay stores them ([-1, 1] or indices)."""
        if self.discrete:
            return action + self.action_space.start
        low, high = self.action_space.low, self.action_space.high
        return np.clip(low + (action + 1.0) * 0.5 * (high - low), low, high).astype(self.action_space.dtype)

    def from_env_action(self, action: np.ndarray) -> np.ndarray:
        """Return the inverse of ``to_env_action``."""
        if self.discrete:
            return np.asarray(action, dtype=np.int64) - int(self.action_space.start)
        low, high = self.action_space.low, self.action_space.high
        return np.clip(2.0 * (action - low) / (high - low) - 1.0, -1.0, 1.0).astype(np.float32)

    def _start_metering(self) -> None:
        # Shared: an agent that was loaded, or made again in the same session, takes its place beside the old one.
        self.meter.watch(self.actor, "actor", shared=True)
        example = torch.zeros((1, *self.observation_shape), device=self.device)
        self.flops_per_action = count_flops(self.actor, example, convention=self.meter.convention)
