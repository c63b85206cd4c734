"""What a training run is told besides its agent's configuration, and the environments that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from agents.config import Settings, check_types, require
from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.integrations import minatar
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.vector.modes import SAME_STEP, mode_arguments

gym.register_envs(minatar)  # importing the module has registered budget/MinAtarBreakout-v0 and its kin

MOST_THREADS = 1_024
"""Of torch: it does not survive a million."""
MOST_ENVS = 100_000
MOST_WORKERS = 1_024
"""Processes of a study, one training each."""


@dataclass(frozen=True)
class RunConfig(Settings):
    """What a run is told besides its agent's configuration.

    Attributes:
        env: a Gymnasium id.
        dataset: a Minari data set to learn from instead, its folder or its id: for offline agents only.
        steps: environment steps of training, of all environments together; offline, updates.
        n_envs: environments that are stepped together, in the vector wrappers of the same names.
        max_episode_steps: time limit of an episode, where it is to differ from the environment's own.
        penalty: λ of the reward ``r − λ·FLOPs``, 0 for the plain reward.
        penalty_budget: mean FLOPs per environment step that training keeps by a λ that adapts, where the agent chooses
            among sub-policies. λ begins at ``penalty``, or by itself where that is 0. 0 for a λ that stays.
        budget_input: whether a share of the budget, drawn anew each episode, is added to the observation as its last
            number; agents with ``budget_from_observation`` read it there.
        sub_policies: saved policies (run folders, checkpoints, zips) that become the actions: the agent is their
            master, and a step is one choice.
        sub_policy_hold: environment steps that a choice between them lasts, or the durations to choose from, too; 1
            with several environments.
        sub_policy_weight: λ, the reward that one step of the cheapest of them costs; dearer ones cost more in
            proportion to their FLOPs.
        eval_every: environment steps between two evaluations, 0 for none.
        eval_episodes: episodes of an evaluation.
        log_every: environment steps between two rows of metrics.
        checkpoint_every: environment steps between two checkpoints. Each is saved at the first end of an episode after
            that; where no time limit ends episodes, within one that has run for ten times as many steps.
        video_every: environment steps between two films of an episode, 0 for none.
        tensorboard: whether to write TensorBoard events too.
        threads: of torch. Small networks run fastest on one; the last digits of a run depend on it.
    """

    env: str
    dataset: str | None = None
    steps: int = 100_000
    n_envs: int = 1
    max_episode_steps: int | None = None
    penalty: float = 0.0
    penalty_budget: float = 0.0
    budget_input: bool = False
    sub_policies: tuple[str, ...] = ()
    sub_policy_hold: int | tuple[int, ...] = 5
    sub_policy_weight: float = 0.0
    eval_every: int = 10_000
    eval_episodes: int = 5
    log_every: int = 1_000
    checkpoint_every: int = 10_000
    video_every: int = 0
    tensorboard: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        held = self.sub_policy_hold
        if isinstance(held, tuple) and len(held) == 1:
            object.__setattr__(self, "sub_policy_hold", held[0])
        require(held != (), "sub_policy_hold", held, "one duration at least")
        require(min(np.atleast_1d(held)) >= 1, "sub_policy_hold", held, "durations of at least 1 step")
        require(self.threads <= MOST_THREADS, "threads", self.threads, f"at most {MOST_THREADS}")
        require(self.n_envs <= MOST_ENVS, "n_envs", self.n_envs, f"at most {MOST_ENVS}")
        require(self.sub_policy_weight >= 0, "sub_policy_weight", self.sub_policy_weight, "a weight of 0 or more")
        for name in ("steps", "n_envs", "eval_episodes", "log_every", "checkpoint_every", "threads"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("eval_every", "video_every"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more steps")
        require(self.penalty >= 0, "penalty", self.penalty, "a weight of 0 or more")
        kept = self.penalty_budget
        require(kept == 0 or kept > 1, "penalty_budget", kept, "FLOPs per environment step, above 1, or 0 for none")
        limit = self.max_episode_steps
        require(limit is None or limit >= 1, "max_episode_steps", limit, "at least 1 step")
        choices, hold = len(self.sub_policies), self.sub_policy_hold
        require(choices != 1, "sub_policies", self.sub_policies, "two at least to choose from, or none")
        together = not choices or self.n_envs == 1 or hold == 1
        require(together, "sub_policy_hold", hold, "1 with several environments, which end at different steps")

    def make_env(self, meter: ComputeMeter | None = None, render_mode: str | None = None) -> gym.Env:
        """Return one environment whose wrappers record what ``meter`` counts and take the penalty off the reward.

        A λ that adapts is frozen, as episodes outside of training are none of its business.

        Raises:
            ConfigError: an environment that Gymnasium does not know.
            CheckpointError: a sub-policy's file that holds no policy.
        """
        return self._single(meter, render_mode, frozen=True)

    def _single(self, meter: ComputeMeter | None, render_mode: str | None, frozen: bool) -> gym.Env:
        from budget_wrappers import wrappers

        env = made(gym.make, self.env, max_episode_steps=self.max_episode_steps, render_mode=render_mode)
        return self._wrapped(env, wrappers, meter, frozen)

    def make_training_env(self, meter: ComputeMeter) -> gym.Env | VectorEnv:
        """Return the environment to train in: a single one, or ``n_envs`` in this process."""
        if self.n_envs == 1:
            return self._single(meter, None, frozen=False)
        from budget_wrappers.wrappers import vector

        envs = made(
            gym.make_vec,
            self.env,
            num_envs=self.n_envs,
            vectorization_mode="sync",
            vector_kwargs=mode_arguments(SAME_STEP),
            max_episode_steps=self.max_episode_steps,
        )
        return self._wrapped(envs, vector, meter, frozen=False)

    def _wrapped(self, env: Any, kinds: ModuleType, meter: ComputeMeter | None, frozen: bool) -> Any:
        """Return ``env`` in the wrappers that the configuration asks for, which are called alike in both packages."""
        env = kinds.BudgetAwareObservation(env, "budget", draw=(0.0, 1.0)) if self.budget_input else env
        if meter is None and not self.sub_policies:
            return env
        meter = meter or ComputeMeter()
        if self.sub_policies:
            paths = [f"file:{path}" for path in self.sub_policies]
            env = kinds.SubPolicyAction(env, paths, self.sub_policy_hold, self.sub_policy_weight, meter)
        if self.penalty_budget:
            start = self.penalty or None
            env = kinds.ComputePenaltyReward(env, "auto", None, meter, self.penalty_budget, initial_weight=start)
            env.freeze(frozen)
        elif self.penalty:
            env = kinds.ComputePenaltyReward(env, weight=self.penalty, meter=meter)
        return kinds.RecordComputeStatistics(env, meter=meter)


def made(make: Any, env_id: str, **settings: Any) -> Any:
    """Return ``make(env_id, …)`` with Gymnasium's refusals as ours."""
    settings = {key: value for key, value in settings.items() if value is not None}
    try:
        return make(env_id, **settings)
    except (gym.error.Error, ImportError, OSError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"env={env_id!r} cannot be made ({error}): expected an id that gymnasium.make knows, with its packages "
            "installed; `python -c 'import gymnasium; gymnasium.pprint_registry()'` lists them"
        ) from error


def require_same_run(stored: Any, wanted: Mapping[str, Any], path: str | Path) -> None:
    """Raise unless a checkpoint was made by a run of the same configuration.

    Args:
        stored: what the checkpoint keeps of its run; ``None``, as earlier versions kept none, is not compared.
        wanted: what the run's folder says.
        path: of the checkpoint.

    Raises:
        CheckpointError: with the first key that differs.
    """
    if stored is None:
        return
    try:
        theirs = vars(RunConfig.of(stored))
    except (ConfigError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} stores {stored!r} as its run's configuration ({error}): expected that of `budget train`; take the "
            "checkpoint of this run"
        ) from error
    for key, value in vars(RunConfig.of(wanted)).items():
        if theirs[key] != value:
            raise CheckpointError(
                f"{path} was made by a run with {key}={theirs[key]!r}, the run's config.json has {key}={value!r}: "
                f"expected the same; put {theirs[key]!r} back (to train for longer pass --steps), or start a new run"
            )
