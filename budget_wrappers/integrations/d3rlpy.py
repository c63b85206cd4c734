"""d3rlpy: data sets that know what acting costs, and algorithms metered while they learn and act.

Offline, so the cost of acting is in the data; episodes are recorded once and penalised as often as you like::

    episodes = record_episodes(RecordComputeStatistics(env), policy, episodes=100)
    algo = CQLConfig().create()
    algo.build_with_dataset(episodes.dataset(weight=1e-6))  # reward − weight · FLOPs
    metered(algo).fit(episodes.dataset(weight=1e-6), n_steps=10_000)
    get_meter("policy").totals  # {"act": …, "learn": …}

Three habits of d3rlpy that matter here:

* It takes Gymnasium's environment as it is, online and in ``EnvironmentEvaluator``, and calls ``reset()`` without
  options: set a budget by ``env.get_wrapper_attr("set_budget")(flops)``, and read ``info["compute"]`` from a wrapper.
* Rewards are float32: ``dataset`` warns where they round a penalty away.
* Evaluators that look at the data set (``TDErrorEvaluator``) predict for batches of it, which is charged to acting in
  the totals. Offline no episode pays for it. Online the next step would: give ``EnvironmentEvaluator`` an environment
  that is wrapped like the training's, and call others inside ``with algo.meter.uncharging():``.
"""

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.functional.costs import penalised_reward
from budget_wrappers.integrations.attaching import (
    ActingLayers,
    attach,
    detach,
    refuse_attached,
    require_attached,
    shapes_decide,
)
from budget_wrappers.integrations.extras import library
from budget_wrappers.metering import ComputeMeter, count_flops, get_meter
from budget_wrappers.policies import AgentPolicy
from budget_wrappers.wrappers.multiplier import validate_weight

Algorithm = TypeVar("Algorithm")


def metered(algo: Algorithm, meter: str | ComputeMeter = "policy") -> Algorithm:
    """Charge what ``algo`` spends, acting and learning, to ``meter``, and return the algorithm.

    ``predict`` and ``sample_action`` are acting; ``update``, and with it ``fit`` and ``fit_online``, is learning, and
    so is ``predict_value``. The algorithm trains to the same numbers as without, and what is saved holds nothing of
    the meter.

    Args:
        algo: of ``d3rlpy.algos``, Q-learning or behaviour cloning, whose networks are built. Updates of those on
            d3rlpy's networks are counted once per kind of update, all others each time.
        meter: name or object; wrappers read ``"policy"`` by default.

    Returns:
        The very algorithm that was given, with an attribute ``meter``. Its class is a subclass of what it was.

    Raises:
        MissingExtraError: d3rlpy is not installed.
        MeterError: it is metered already.
        ConfigError: it is no such algorithm, or its networks are not built.
        UncountableError: at the first action, when products run outside of the layers of the networks that act.
    """
    impl = _impl_of(algo)
    refuse_attached(algo)
    account = get_meter(meter) if isinstance(meter, str) else meter
    layers = ActingLayers(account, _acting(impl))
    base, token = type(algo), object()  # part of every key, so that no two algorithms share one
    repeats = _shapes_decide(impl)

    def update(self: Any, batch: Any) -> dict[str, float]:
        key = (token, *_kind_of_update(self, batch)) if repeats else None
        with account.phase("learn", key=key):
            return base.update(self, batch)

    def create_impl(self: Any, *shapes: Any) -> None:
        raise MeterError(
            f"this {base.__name__} is metered and would get other networks; expected those that are watched. Call "
            "unmeter(algo) first, and metered(algo) afterwards"
        )

    def predict_value(self: Any, x: Any, action: Any) -> Any:
        with account.phase("learn"):
            return base.predict_value(self, x, action)

    def predict(self: Any, x: Any) -> Any:
        return layers.run(base.predict, self, x)

    def sample_action(self: Any, x: Any) -> Any:
        return layers.run(base.sample_action, self, x)

    counted = {method.__name__: method for method in (update, create_impl, predict_value, predict, sample_action)}
    attach(algo, account, {**counted, "_layers": layers})
    return algo


def unmeter(algo: Algorithm) -> Algorithm:
    """Undo ``metered`` and leave nothing behind on ``algo``.

    Raises:
        MeterError: it is not metered.
    """
    require_attached(algo)
    algo._layers.detach()
    detach(algo)
    return algo


def flops_per_action(algo: Any) -> int:
    """Return the FLOPs of ``algo.predict`` on one observation, in the ``matmul`` convention.

    Raises:
        MissingExtraError: d3rlpy is not installed.
        ConfigError: it is no algorithm whose networks are built.
        UncountableError: the FLOPs of something in its networks cannot be counted.
    """
    impl = _impl_of(algo)
    return count_flops(impl.predict_best_action, _example(impl))


def as_sub_policy(algo: Any, name: str | None = None, deterministic: bool = True) -> AgentPolicy:
    """Return ``algo`` as a sub-policy, its FLOPs counted: one observation of the environment to one action.

    Args:
        algo: of ``d3rlpy.algos``, whose networks are built.
        name: unique among its siblings; the algorithm's class when None.
        deterministic: act by ``predict``; else by ``sample_action``.

    Raises:
        MissingExtraError, ConfigError, UncountableError: as ``flops_per_action``.
    """
    return AgentPolicy(_Agent(algo), flops_per_action(algo), name or type(algo).__name__, deterministic)


class _Agent:
    """An algorithm that acts on single observations."""

    def __init__(self, algo: Any) -> None:
        self._algo = algo

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[Any, None]:
        """Return the action for ``observation``."""
        act = self._algo.predict if deterministic else self._algo.sample_action
        return act(np.asarray(observation)[None])[0], None


# ---- episodes and their cost ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Episodes:
    """Steps of whole episodes, one after the other.

    Attributes:
        observations: before each step, ``(N, …)``.
        actions: ``(N, …)``.
        rewards: of the environment as it was wrapped, ``(N,)`` float64.
        costs: FLOPs that the action of each step took, ``(N,)`` float64.
        terminals: where an episode ended by itself, ``(N,)`` booleans.
        timeouts: where it was cut, ``(N,)`` booleans.
        penalised: whether ``rewards`` have a penalty in them already.
        reports: ``info["compute"]`` of each episode, with the returns before and after penalties.
        action_size: number of discrete actions, or dimensions of continuous ones.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    costs: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    penalised: bool
    reports: tuple[dict[str, Any], ...]
    action_size: int

    def dataset(self, weight: float = 0.0, floor: float | None = None) -> Any:
        """Return an ``MDPDataset`` of d3rlpy with the rewards ``reward − weight · cost``.

        Args:
            weight: reward per FLOP, >= 0.
            floor: what a penalty never pulls a reward below; None for no floor.

        Raises:
            MissingExtraError: d3rlpy is not installed.
            ConfigError: ``weight`` is negative or NaN, or the rewards are penalised already.
        """
        weight = validate_weight(weight)
        if weight and self.penalised:
            raise ConfigError(
                f"weight={weight} and the environment had a penalty when these episodes were recorded; expected one "
                "of the two. Record without ComputePenaltyReward, or leave weight at 0"
            )
        d3rlpy = library("d3rlpy", "d3rlpy")
        rewards = np.asarray(penalised_reward(self.rewards, self.costs, weight, floor), np.float64)
        _warn_of_lost_penalties(self.rewards, rewards)
        discrete = self.actions.dtype.kind in "iu"
        spaces = d3rlpy.constants.ActionSpace
        return d3rlpy.dataset.MDPDataset(
            self.observations,
            self.actions,
            rewards.astype(np.float32),
            self.terminals.astype(np.float32),
            self.timeouts.astype(np.float32),
            action_space=spaces.DISCRETE if discrete else spaces.CONTINUOUS,
            action_size=self.action_size,
        )


def record_episodes(env: gym.Env, policy: Callable[[Any], Any], episodes: int, seed: int = 0) -> Episodes:
    """Run ``policy`` and return what happened, and what each action cost.

    Args:
        env: a single environment in ``RecordComputeStatistics``; actions are discrete or a box.
        policy: one observation to one action; it charges the meter that ``env`` reads (a metered agent, a sub-policy).
        episodes: at least 1; episode ``i`` is reset with ``seed + i``.
        seed: of the first episode.

    Raises:
        ConfigError: fewer than one episode, nothing in ``env`` records costs, or an action space of another kind.
    """
    if episodes < 1:
        raise ConfigError(f"episodes={episodes}: expected at least 1; pass a positive number of episodes")
    if not env.has_wrapper_attr("cost_key"):
        raise ConfigError(f"{env} writes no costs; expected RecordComputeStatistics(env) around it")
    size, key = _action_size(env.action_space), env.get_wrapper_attr("cost_key")
    steps: list[tuple[Any, ...]] = []
    reports = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        terminated = truncated = False
        while not (terminated or truncated):
            seen, action = np.array(observation), policy(observation)  # a copy: some write each one into the same array
            taken = np.array(action)
            after, reward, terminated, truncated, info = env.step(action)
            # d3rlpy knows an end by one of the two flags.
            steps.append((seen, taken, float(reward), info[key], terminated, truncated and not terminated))
            observation = after
        reports.append(info["compute"])
    observations, actions, rewards, costs, terminals, timeouts = map(np.asarray, zip(*steps, strict=True))
    penalised = any(report["return_raw"] != report["return_penalised"] for report in reports)
    return Episodes(observations, actions, rewards, costs, terminals, timeouts, penalised, tuple(reports), size)


def _action_size(space: gym.Space) -> int:
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return int(space.n)
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ConfigError(f"actions in {space}: expected Discrete(n) from 0 or a Box of one dimension, as d3rlpy has them")


def _warn_of_lost_penalties(raw: np.ndarray, penalised: np.ndarray) -> None:
    """Warn where float32 has one number for a reward with and without its penalty."""
    lost = (raw != penalised) & (raw.astype(np.float32) == penalised.astype(np.float32))
    if lost.any():
        warnings.warn(
            f"d3rlpy stores rewards as float32: {lost.sum()} of {len(raw)} penalties are rounded away and an algorithm "
            "cannot learn from them. Raise the weight, or scale the rewards down.",
            UserWarning,
            stacklevel=3,
        )


# ---- which networks act, and what an update costs -------------------------------------------------------------------


def _impl_of(algo: Any) -> Any:
    """Return the networks' owner inside of ``algo``."""
    base = library("d3rlpy.algos.qlearning.base", "d3rlpy").QLearningAlgoBase
    if not isinstance(algo, base):
        raise ConfigError(
            f"got a {type(algo).__name__}; expected an algorithm of d3rlpy.algos made by its config, "
            "DQNConfig().create(), that is no transformer; count others by hand, get_meter('policy').watch(module)"
        )
    if algo.impl is None:
        raise ConfigError(
            f"this {type(algo).__name__} has no networks; expected them to be built. Call "
            "algo.build_with_dataset(dataset) or algo.build_with_env(env) first; a RandomPolicy never has any"
        )
    shape = algo.impl.observation_shape
    if not isinstance(shape, int) and not all(isinstance(size, int) for size in shape):
        raise ConfigError(f"observations of the shapes {shape}: expected one array; put several into one first")
    return algo.impl


def _networks(impl: Any) -> dict[str, nn.Module]:
    modules = getattr(impl, "modules", None)
    return {name: part for name, part in vars(modules).items() if isinstance(part, nn.Module)} if modules else {}


def _acting(impl: Any) -> dict[str, nn.Module]:
    """Return the networks that acting runs: a policy, Q-functions, or a generator of actions and both."""
    ran: set[str] = set()
    handles = [
        part.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, network in _networks(impl).items()
        for part in network.modules()
    ]
    try:
        count_flops(impl.predict_best_action, _example(impl))  # leaves random generators and modes alone
    finally:
        for handle in handles:
            handle.remove()
    return {name: network for name, network in _networks(impl).items() if name in ran}


def _example(impl: Any) -> torch.Tensor:
    shape = impl.observation_shape
    return torch.zeros((1, *((shape,) if isinstance(shape, int) else shape)), device=impl.device)


def _shapes_decide(impl: Any) -> bool:
    """Tell whether the FLOPs of updates follow from the sizes of batches and the number of the step."""
    known = type(impl).__module__.rpartition(".")[2] in _SHAPES_DECIDE and type(impl).__module__.startswith("d3rlpy.")
    return known and all(shapes_decide(network, "d3rlpy") for network in _networks(impl).values())


_SHAPES_DECIDE = {f"{name}_impl" for name in ("awac", "bc", "cql", "ddpg", "dqn", "iql", "sac", "td3", "td3_plus_bc")}


def _kind_of_update(algo: Any, batch: Any) -> tuple[Hashable, ...]:
    """Return what the FLOPs of this update follow from: TD3 updates its actor with every second critic."""
    interval = getattr(algo.config, "update_actor_interval", 1)
    return batch.observations.shape, algo.grad_step % interval == 0


__all__ = [
    "Episodes",
    "as_sub_policy",
    "flops_per_action",
    "metered",
    "record_episodes",
    "unmeter",
]
