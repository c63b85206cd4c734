"""The off-policy agent: what SAC, TD3, DQN, CQL and GAIL share, with the habits of Stable-Baselines3.

An agent adds its networks, how it explores, and ``update(batch)``. It knows nothing of budgets: it charges what its
actor costs to its meter and sees observations, rewards and losses. Methods that it is given know of budgets; it asks
them at fixed places (``agents.loop.host``) and never learns their names.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from agents.config import OffPolicyConfig, device_at_hand
from agents.loop.callbacks import Callback, callbacks_of
from agents.loop.checkpoint import load_agent, save_agent
from agents.loop.collect import RunningEpisodes, Step, collector_of
from agents.loop.conversion import Conversion
from agents.loop.divergence import require_converging
from agents.loop.host import MethodHost
from agents.loop.interface import meter_for, require_meter, require_same_spaces, require_spaces
from agents.loop.method import Method, Says
from agents.loop.structure import layer_sizes
from agents.replay.buffers import Batch, ReplayBuffer
from agents.replay.hindsight import HindsightReplay, goal_reward, goal_slices
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.metering.isolation import one_at_a_time


class OffPolicyAgent(MethodHost, Conversion, ABC):
    """Base of the agents.

    Args:
        env: a Gymnasium environment or vector environment; ``None`` is for loading only.
        meter: the account that acting and learning are charged to. By default the one the environment's wrappers
            read (``RecordComputeStatistics`` and its kin), else one of the agent's own.
        methods: budget methods, such as ``Exits(budget=0.3)``, asked in this order; see ``agents.loop.method``.
        parts: modules given instead of the textbook networks; each agent names the ones it takes.
        settings: keys of ``config_class``.

    Attributes:
        chosen: which rows of the last training step the actor chose, ``(n,)``; ``None`` where it chose all.

    Raises:
        ConfigError: an unknown key or a value out of bounds.
        SpaceError: spaces that the agent cannot use.
    """

    config_class: ClassVar[type[OffPolicyConfig]]
    discrete: ClassVar[bool] = False
    offline: ClassVar[bool] = False
    method_arguments: ClassVar[tuple[str, ...]] = ("methods",)
    """The arguments that take budget methods."""
    says: ClassVar[Says]
    """What the output of the actor means."""

    def __init__(
        self,
        env: gym.Env | VectorEnv,
        *,
        meter: ComputeMeter | str | None = None,
        methods: Sequence[Method] = (),
        **settings: Any,
    ) -> None:
        self.config = self.config_class.of(settings)
        self.env, self.meter = env, meter_for(env, meter)
        self.hold(methods)
        vector = isinstance(env, VectorEnv)
        self.observation_space = env.single_observation_space if vector else env.observation_space
        self.action_space = env.single_action_space if vector else env.action_space
        require_spaces(type(self).__name__, self.observation_space, self.action_space, self.discrete)
        self.device = device_at_hand(self.config.device)
        self.num_timesteps, self.num_rounds, self.num_updates, self.num_episodes = 0, 0, 0, 0
        self.total_timesteps = 0
        self.metrics: dict[str, Tensor] = {}
        self.chosen: np.ndarray | None = None
        for held in self.methods:
            held.require(self, env)
        self.rng = np.random.default_rng(self.config.seed)
        self.generator = torch.Generator(self.device).manual_seed(self.config.seed)
        # One at a time: weights are drawn from torch's generator, which all threads share.
        with one_at_a_time(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.build()
            for held in self.methods:
                held.build(self)
        self.replay = self.make_replay()
        self._restart = False
        self.start_metering()
        for held in self.methods:
            held.taken = True  # last: methods of an agent that was refused can be given to another
        self.built_sizes = {name: layer_sizes(module) for name, module in self.own_modules.items()}

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
    def own_modules(self) -> Mapping[str, nn.Module]:
        """Every network, for checkpoints."""

    @property
    @abstractmethod
    def own_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
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
        return functools.reduce(lambda known, held: {**known, **held.logged(self)}, self.methods, self.metrics)

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
            NonFiniteError: a number that is not finite in float32 in an observation or reward (nothing of that step is
                stored), or training has diverged.
        """
        callbacks = callbacks_of(callback, progress_bar, total_timesteps)
        collector, end = self.collector(), self.num_timesteps + total_timesteps
        self.total_timesteps = end
        episodes = RunningEpisodes(collector.num_envs)
        callbacks.on_training_start(self)
        try:
            self._reset(collector)
            while self.num_timesteps < end:
                action = self.choosing(collector.observation, self.explore)
                step = collector.step(action, self.to_env_action(action))
                self.num_timesteps += len(step.streams)
                self.store(step)
                for held in self.methods:
                    held.after_storing(self, step)
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
            require_converging(self)
            self.learned()
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
            NonFiniteError: an observation with NaN or infinity, or an output of the network with them.
        """
        rows, batched = self.observation_rows(observation)
        action = self.to_env_action(self.act(rows, deterministic))
        return (action if batched else action[0]), state

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
        with self.adopting(env):
            self.env = env

    def restart_episodes(self) -> None:
        """Reset every environment, seeded, before the next step; a vector run does so after each checkpoint."""
        self._restart = True

    # ---- parts of the loop --------------------------------------------------------------------------------------

    def train(self, updates: int) -> None:
        """Take ``updates`` gradient steps on samples of the replay."""
        scale, methods = self.config.reward_scale, self.methods
        for _ in range(updates):
            if len(self.replay) == 0:
                return  # hindsight needs a finished episode
            for held in methods:
                held.before_update(self)
            batch = self.replay.sample(self.config.batch_size, self.generator)
            batch = batch._replace(reward=batch.reward * scale) if scale != 1 else batch
            with self.learning(self.kind_of_update()):
                self.metrics |= self.update(batch)
            self.num_updates += 1
            for held in methods:
                held.after_update(self)
                self.metrics |= held.metrics(self)

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

    def make_replay(self) -> ReplayBuffer:
        """Return an empty replay for the agent's spaces."""
        config = self.config
        action_shape = () if self.discrete else self.action_space.shape
        settings = {"discrete": self.discrete, "gamma": config.gamma, "device": config.device}
        settings["reward_scale"] = config.reward_scale
        shapes = config.buffer_size, self.observation_shape, action_shape
        if config.hindsight:
            goals = goal_slices(self.observation_space, config.n_step)
            return HindsightReplay(*shapes, goals, goal_reward(self.env), config.hindsight, **settings)
        return ReplayBuffer(*shapes, n_step=config.n_step, **settings)
