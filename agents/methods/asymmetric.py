"""Asymmetric sub-policies: a master picks a small or a large network, which then acts for some steps.

Source: "Reducing the Deployment-Time Inference Control Costs of DRL Agents via an Asymmetric Architecture" (ICRA 2021).
Parts: two SAC agents, one DQN on ``SubPolicyAction``, one replay that both SAC agents share. No part knows the others.

Every clock runs on environment steps: the DQN is the ordinary one, and this recipe turns its clock once a step of the
environment. A third-party DQN on ``options_for_another_master`` counts decisions, ``hold`` times fewer: divide its
intervals (target updates, exploration, learning starts) by ``hold`` and multiply its updates a step by ``hold``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from agents.config import require
from agents.dqn import DQN
from agents.loop.agent import OffPolicyAgent
from agents.loop.collect import RunningEpisodes, SingleCollector, Step, require_finite
from agents.loop.composite import CompositeAgent
from agents.loop.explorer import Explorer
from agents.loop.method import Method
from agents.methods.asymmetric_config import LARGE_ACTED, AsymmetricConfig, Size, sub_policy_methods
from agents.nets.noise import OrnsteinUhlenbeck
from agents.replay.buffers import Batch
from agents.replay.hindsight import goal_reward, goal_slices
from agents.replay.hindsight_options import HindsightOptions, OptionTrace
from agents.replay.option_replay import OptionReplay, Replays
from agents.sac import SAC
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.policies import AgentPolicy, SubPolicies
from budget_wrappers.wrappers import RecordComputeStatistics, SubPolicyAction
from budget_wrappers.wrappers.options import PrimitiveTransition


class Asymmetric(CompositeAgent):
    """Two sub-policies of different size and a master that picks one of them for ``hold`` steps.

    ``r_Ω = Σ r − λ·n·c`` is what the master learns from, ``c`` the sub-policy's FLOPs relative to the small one's. All
    that runs to act is charged to the meter: ``"small"``, ``"large"`` and, once a decision, the master's ``"actor"``.

    Args:
        env: a single environment with a bounded ``Box`` action space. A ``RecordComputeStatistics`` around it moves
            outside of the options while training; other wrappers that read costs are refused there.
        meter: see ``OffPolicyAgent``.
        small_methods: budget methods of the small sub-policy, such as ``PolyPrune(final=0.9)``.
        large_methods: of the large one. With ``Exits`` a call costs what the exit costs that it left at; the dearest
            exit is what the sub-policy declares, to the choice of sizes and to a hard limit.
        settings: keys of ``AsymmetricConfig``.

    Attributes:
        small: the small sub-policy, a SAC agent.
        large: the large one.
        master: a DQN agent over the two.
        options: the ``SubPolicyAction`` that training steps.

    Raises:
        ConfigError: an unknown key, a value out of bounds, or a large sub-policy that costs no more than the small one.
        SpaceError: a vector environment, or spaces that SAC cannot use.
        WrapperOrderError: a wrapper that penalises or limits compute inside.
    """

    config_class = AsymmetricConfig
    config: AsymmetricConfig
    method_arguments = ("small_methods", "large_methods")

    def __init__(
        self,
        env: Any,
        *,
        meter: Any = None,
        small_methods: Sequence[Method] = (),
        large_methods: Sequence[Method] = (),
        **settings: Any,
    ) -> None:
        self._methods_of = sub_policy_methods(small_methods, large_methods, settings)
        super().__init__(env, meter=meter, **settings)

    def build(self) -> None:
        if isinstance(self.env, VectorEnv):
            raise SpaceError(
                f"Asymmetric got {self.env}: expected a single environment, as options end at different times; "
                "pass one of its environments"
            )
        self.noise = OrnsteinUhlenbeck(self.action_space.shape[0], self.config.correlated_noise, self.rng)
        self.small, self.large = self._sub_policy("small"), self._sub_policy("large")
        if not self.small.flops_per_action < self.large.flops_per_action:
            for held in (*self.small.methods, *self.large.methods):
                held.taken = False
            raise ConfigError(
                f"net_arch={self.config.net_arch} costs {self.large.flops_per_action} FLOPs an action: expected more "
                f"than the {self.small.flops_per_action} of small_net_arch={self.config.small_net_arch}; swap them"
            )
        self.large.acting_offset = LARGE_ACTED
        if self.config.shared_buffer:
            self.large.replay = self.small.replay
        self._latest: Any = None
        self._explorers = (Explorer("small", self.small, self.noise), Explorer("large", self.large, self.noise))
        self._trace = OptionTrace() if self.config.master_hindsight else None
        self._wrap()
        self.master = self._own(DQN(self.options, meter=self.meter, **self.config.master(), seed=self._seed()))
        self.master.replay = self._option_replay()
        self.master.followers.append(self._follow_costs)
        self.options.set_selector_flops(self.master.flops_per_action)

    def _sub_policy(self, size: Size) -> SAC:
        settings = {**self.config.sub_policy(size), "seed": self._seed()}
        with self.meter.paused():  # SubPolicyAction names the sub-policy, whatever names its parts have
            agent = self._own(SAC(self.env, meter=self.meter, methods=self._methods_of[size], **settings))
        agent.stop_watching()  # SubPolicyAction and predict charge sub-policies by name
        agent.followers.append(self._follow_costs)
        return agent

    def _follow_costs(self) -> None:
        """Take over what the parts cost after one of them has changed in size."""
        self.options.recount()
        self.options.set_selector_flops(self.master.flops_per_action)
        self.flops_per_action = self.large.flops_per_action + self.master.flops_per_action

    def _own(self, agent: Any) -> Any:
        """Let ``agent`` draw from this agent's generators, so that one state is all of them."""
        agent.rng, agent.generator = self.rng, self.generator
        return agent

    def _seed(self) -> int:
        return int(self.rng.integers(2**31))

    def _wrap(self) -> None:
        """Put the options around the environment, and the account outside of them."""
        self.options = self.choices_in(self.env, self._explorers)
        self.options.subscribe(lambda step: self._learn_from(step, tuple(self.parts.values())))
        if self._trace:
            self.options.subscribe(self._trace)
        self._recorded = RecordComputeStatistics(self.options, self.meter)

    def _option_replay(self) -> OptionReplay:
        """Return the master's replay."""
        config, replay = self.config, self.master.replay
        if self._trace:
            replay = HindsightOptions(
                config.master_buffer_size,
                self.observation_shape,
                goal_slices(self.observation_space),
                goal_reward(self.env),
                config.master_hindsight,
                trace=self._trace,
                longest=max(self.options.durations),
                gamma=config.gamma,
                device=config.device,
                reward_scale=self.master.config.reward_scale,
            )
        return OptionReplay(replay, "duration" if config.bootstrap == "gamma_n" else "one")

    # ---- parts --------------------------------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, OffPolicyAgent]:
        """The three agents by name."""
        return {"small": self.small, "large": self.large, "master": self.master}

    @property
    def sub_policies(self) -> SubPolicies:
        """The sub-policies as they act when evaluated, for a ``SubPolicyAction`` with another master."""
        agents = {"small": self.small, "large": self.large}
        return SubPolicies(
            AgentPolicy(agent, agent.flops_per_action, name, batched=True, convention=agent.meter.convention)
            for name, agent in agents.items()
        )

    def choices_in(self, env: gym.Env, sub_policies: Any = None) -> SubPolicyAction:
        """Return ``env`` with the sub-policies as its actions, by default as they act when evaluated."""
        while isinstance(env, RecordComputeStatistics):
            env = env.env
        config = self.config
        return SubPolicyAction(env, sub_policies or self.sub_policies, config.hold, config.weight, self.meter)

    def options_for_another_master(self, total_timesteps: int | None = None) -> SubPolicyAction:
        """Return options whose sub-policies explore and learn while anybody's agent chooses between them.

        That agent's ``learn`` trains all; it counts decisions, see the conversion above. This agent's own master
        neither acts nor learns there, and a recorder goes outside.

        Args:
            total_timesteps: environment steps that will be taken, which methods of the sub-policies have to know.

        Raises:
            ConfigError: the sub-policies have methods and it is not given.
        """
        for agent in (self.small, self.large):
            require(not agent.methods or total_timesteps, "total_timesteps", total_timesteps, "the steps of the run")
            agent.total_timesteps = agent.num_timesteps + (total_timesteps or 0)
        options = self.choices_in(self.env, self._explorers)
        options.subscribe(lambda step: self._learn_from(step, (self.small, self.large)))
        return options

    @property
    def actor(self) -> nn.Module:
        """The master's network; sub-policies are charged by name."""
        return self.master.actor

    def make_replay(self) -> Replays:
        """Return the replays of the parts as one, for checkpoints and resets."""
        own = {} if self.config.shared_buffer else {"large": self.large.replay}
        return Replays({"small": self.small.replay, **own, "master": self.master.replay})

    @property
    def methods_given(self) -> dict[str, list[dict[str, Any]]]:
        """The methods of the sub-policies, as plain data, by argument."""
        given = {f"{size}_methods": [held.record() for held in held_by] for size, held_by in self._methods_of.items()}
        return {name: records for name, records in given.items() if records}

    def set_env(self, env: gym.Env) -> None:
        """Train on ``env`` from now on; see ``OffPolicyAgent``."""
        super().set_env(env)
        self._wrap()
        self.options.set_selector_flops(self.master.flops_per_action)

    # ---- learning -----------------------------------------------------------------------------------------------

    def collector(self) -> SingleCollector:
        """Return what steps the options: the loop of ``learn`` turns once a decision."""
        return SingleCollector(self._recorded, self.to_array)

    def explore(self, observation: np.ndarray) -> np.ndarray:
        for agent in self.parts.values():
            agent.total_timesteps = self.total_timesteps
        return self.master.explore(observation)

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Return the option of each row."""
        return self.master.act(observation, deterministic)

    def to_env_action(self, action: np.ndarray) -> np.ndarray:
        """Return ``action``: options are the actions of the environment that is stepped."""
        return action

    def store(self, step: Step) -> None:
        """Give the master its option; the sub-policies have had the steps of it already."""
        # The loop counts a decision as one step, the parts have counted the environment's.
        self.num_timesteps = self.master.num_timesteps
        self.master.replay.add_option(
            step.observation,
            step.action,
            step.reward,
            step.next_observation,
            self._cuts(step.terminated, step.truncated),
            step.truncated,
            int(step.infos[0]["duration"]),
        )
        self.metrics = {f"{name}/{key}": value for name, a in self.parts.items() for key, value in a.logged().items()}

    def train(self, updates: int) -> None:
        """Do nothing: everything learns once a step of the environment, within the option."""

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Take one step of the master."""
        return self.master.update(batch)

    def _learn_from(self, step: PrimitiveTransition, parts: tuple[OffPolicyAgent, ...]) -> None:
        """Store one step of the environment and let each of ``parts`` learn once."""
        after = self.to_array(step.next_observation)
        require_finite("the observation", after, self.small.num_timesteps)
        if step.observation is not self._latest:  # somebody has reset the environment, with or without an end
            self._forget_episode()
        self._latest = step.next_observation
        before, action = self.to_array(step.observation), self._explorers[step.index].action
        terminated, truncated = np.array([step.terminated]), np.array([step.truncated])
        learner = self.small if self.config.shared_buffer or step.index == 0 else self.large
        learner.replay.add(
            before[None],
            action[None],
            np.array([step.reward]),
            after[None],
            self._cuts(terminated, truncated),
            truncated,
        )
        self._explorers[step.index].tell_stored(terminated, truncated, learner.replay, held=step.index < 0)
        for agent in parts:
            agent.num_timesteps += 1
            agent.num_rounds += 1
            agent.after_step()
            steps, config = agent.num_timesteps, agent.config
            if steps > config.learning_starts and steps % config.train_freq == 0:
                agent.train(config.gradient_steps if config.gradient_steps >= 0 else config.train_freq)
        self.num_updates = self.master.num_updates
        if step.terminated or step.truncated:
            self.noise.reset()

    def _forget_episode(self) -> None:
        """Begin anew: noise from 0, and no return or goal across the gap."""
        self.noise.reset()
        for agent in (self.small, self.large):
            agent.replay.forget_unfinished()

    def _cuts(self, terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
        return terminated | truncated if self.config.cut_at_time_limit else terminated

    def _reset(self, collector: Any) -> None:
        super()._reset(collector)
        self.noise.reset()

    def finished_episodes(self, step: Step, running: RunningEpisodes) -> list[dict[str, Any]]:
        """Return the report of each finished episode; its length is in steps of the environment."""
        episodes = super().finished_episodes(step, running)
        for episode in episodes:
            episode |= {"decisions": episode["length"], "length": int(episode["compute"]["steps"])}
        return episodes

    # ---- acting -------------------------------------------------------------------------------------------------

    def predict(
        self,
        observation: np.ndarray | Mapping[str, np.ndarray],
        state: tuple[np.ndarray, np.ndarray] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Return the environment's action for one observation or ``n`` of them, and the state for the next call.

        As with a recurrent policy, a choice lasts only if the state is handed back; without one, each call decides.

        Args:
            observation: of the environment.
            state: what the last call returned: option and steps left of it, ``(n,)`` each.
            episode_start: ``(n,)``, true where an episode begins and a new choice is due.
            deterministic: sub-policies act by their mean and the master greedily; else they sample and it explores
                with its present ε.
        """
        rows, batched = self.observation_rows(observation)
        option, left = (part.copy() for part in state) if state is not None else np.zeros((2, len(rows)), np.int64)
        due = left == 0 if episode_start is None else (left == 0) | np.asarray(episode_start, dtype=bool)
        if due.any():
            duration, option[due] = np.divmod(self.master.act(rows[due], deterministic), len(self.options.choice_names))
            left[due] = np.array(self.options.durations)[duration]
        action = np.empty((len(rows), *self.action_space.shape), self.action_space.dtype)
        for index, (name, agent) in enumerate((("small", self.small), ("large", self.large))):
            chosen = option == index
            if chosen.any():
                with self.meter.paused():
                    action[chosen] = agent.to_env_action(agent.act(rows[chosen], deterministic))
                count = int(chosen.sum())
                self.meter.add(agent.flops_spent(count), name, count)
        return (action if batched else action[0]), (option, left - 1)

    def start_metering(self) -> None:
        """Declare what one action costs; the master's network is watched since it was made."""
        self.flops_per_action = self.large.flops_per_action + self.master.flops_per_action
