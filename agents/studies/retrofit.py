"""Giving a trained policy early exits, and what each budget then buys: points of a comparison, policies as files.

The maths is in ``budget_wrappers.policies.retrofit``; here are the actors of our own agents, and the study.
"""

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from agents.dqn import DQN, QNetwork
from agents.loop.agent import OffPolicyAgent
from agents.loop.evaluate import evaluate_policy
from agents.loop.versions import versions
from agents.nets.mlp import MLP
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.run_config import RunConfig
from agents.sac import SAC
from agents.td3 import TD3
from budget_wrappers.deploy.engines import EnginePolicy
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy, Normalisation
from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.integrations import sb3_retrofit
from budget_wrappers.metering import ComputeMeter, Latency, measure_latency
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import Retrofit, RetrofitConfig, TrainedActor
from budget_wrappers.policies.rows import Concatenation

AS_TRAINED, IN_NUMPY = "as trained", "as trained, numpy"


@dataclass(frozen=True)
class RetrofitStudy:
    """What came of it.

    Attributes:
        comparison: the policy as it was trained, and one point a budget.
        files: the policy of each budget.
        latencies: of one action on states that the trained policy visits: as it was trained, the same weights in the
            numpy engine, and by budget (numpy, too).
        seconds: that adding the exits took, without evaluations.
    """

    comparison: Comparison
    files: Mapping[float, Path]
    latencies: Mapping[str, Latency]
    seconds: float


def run_retrofit(
    policy: Any,
    actor: TrainedActor,
    setup: RunConfig,
    config: RetrofitConfig,
    budgets: Sequence[float],
    folder: Path,
    episodes: int = 20,
    seed: int = 20_000,
    tell: Callable[[str], None] = lambda line: None,
) -> RetrofitStudy:
    """Add exits to ``policy``, teach their gates each budget, and measure all of them.

    Args:
        policy: that was trained; it has a ``meter`` and is not changed.
        actor: what retrofitting has to know of it.
        setup: the environment.
        config: how exits are fitted.
        budgets: mean cost of each policy to make, 0 for its first exit and 1 for its last.
        folder: for the policies, ``budget-<b>.safetensors``, and the comparison.
        episodes: of each evaluation.
        seed: of the first of them.
        tell: called with a line now and then.

    Raises:
        ConfigError: no budgets, one below 0 or infinite, the same one twice, exits that the actor cannot have, or a
            folder that cannot be made.
    """
    named = {f"{budget:g}" for budget in budgets}
    if not budgets or len(named) < len(budgets) or not all(0 <= budget < math.inf for budget in budgets):
        raise ConfigError(f"budgets={tuple(budgets)}: expected one or several different ones of 0 or more, such as 0.1")
    retrofit = Retrofit(actor, config)  # before any work: it refuses exits that the actor cannot have
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"folder={str(folder)!r} cannot be made ({error}): expected a new folder's path") from error
    name = type(getattr(policy, "model", policy)).__name__
    points = [measured(policy, setup, policy.meter, f"{name} as trained", episodes, seed)]
    states = visited(policy, setup, seed)
    latencies = {
        AS_TRAINED: latency_of(policy, states),
        IN_NUMPY: latency_of(EnginePolicy(actor, "numpy"), states),
    }
    normalisation = actor.to_array if isinstance(actor.to_array, Normalisation) else None
    concatenation = actor.to_array if isinstance(actor.to_array, Concatenation) else None
    start = time.perf_counter()
    env = setup.make_env()
    try:
        for number, loss in enumerate(retrofit.imitate(env)):
            tell(f"round {number + 1} of imitation: mean square error {loss:.4f}")
    finally:
        env.close()
    seconds, files = time.perf_counter() - start, {}
    for budget in sorted(budgets):
        start = time.perf_counter()
        retrofit.teach_gates(budget)
        seconds += time.perf_counter() - start
        network = copy.deepcopy(retrofit.network)
        made = BudgetedExitPolicy(network, actor.action_map, budget, normalisation, concatenation=concatenation)
        files[budget] = made.save(folder / f"budget-{budget:g}")
        points.append(measured(made, setup, made.meter, f"b = {budget:g}", episodes, seed))
        latencies[f"{budget:g}"] = latency_of(made, states)
        tell(f"budget {budget:g}: return {points[-1].mean_return:.1f}, {points[-1].flops_per_step:,.0f} FLOPs a step")
    settings = {"retrofit": dataclasses.asdict(config), "budgets": sorted(budgets), "seconds": seconds}
    settings |= {"p50_us": {key: one.p50_us for key, one in latencies.items()}}
    comparison = Comparison(setup.env, points, versions=versions(), settings=settings)
    comparison.write(folder)
    return RetrofitStudy(comparison, files, latencies, seconds)


def measured(policy: Any, setup: RunConfig, meter: ComputeMeter, label: str, episodes: int, seed: int) -> TradeoffPoint:
    """Return an evaluation as a point of the comparison."""
    env = setup.make_env(meter)
    try:
        result = evaluate_policy(policy, env, episodes, seed)
    finally:
        env.close()
    baseline = not isinstance(policy, BudgetedExitPolicy)
    extras = {"baseline": baseline} | ({} if baseline else {"budget": policy.budget, "share_steps": result.shares})
    return TradeoffPoint.from_episodes(
        AS_TRAINED if baseline else "with exits", label, 0, result.by_episode(), extras=extras
    )


def visited(policy: Any, setup: RunConfig, seed: int, steps: int = 500) -> list[Any]:
    """Return the observations of ``steps`` steps of ``policy``."""
    env = setup.make_env()
    found = []
    try:
        over = True
        for number in range(steps):
            if over:
                observation, _ = env.reset(seed=seed + number)
            found.append(copy.deepcopy(observation))  # some environments write each one into the same array
            observation, _, terminated, truncated, _ = env.step(policy.predict(observation, deterministic=True)[0])
            over = terminated or truncated
    finally:
        env.close()
    return found


def latency_of(policy: Any, observations: Sequence[Any]) -> Latency:
    """Time single actions on all of ``observations``: which exit acts, and so how long it takes, depends on them."""
    turn = itertools.cycle(observations)
    return measure_latency(
        lambda: policy.predict(next(turn), deterministic=True), samples=2 * len(observations), threads=1
    )


def actor_of(policy: Any) -> TrainedActor:
    """Return what retrofitting has to know of a policy, of ours or of Stable-Baselines3.

    Raises:
        ConfigError: an actor that exits cannot be added to.
        SpaceError: spaces that they cannot act in.
    """
    if isinstance(policy, OffPolicyAgent):
        return trained_actor(policy)
    return sb3_retrofit.trained_actor(getattr(policy, "model", policy))


def trained_actor(agent: OffPolicyAgent) -> TrainedActor:
    """Return what retrofitting has to know of one of our agents: SAC, CQL and TD3 with their critics, DQN.

    Raises:
        ConfigError: an agent with other networks than the textbook's perceptrons.
        SpaceError: observations that are no vector.
    """
    if not isinstance(agent.observation_space, gym.spaces.Box):
        raise SpaceError(
            f"{type(agent).__name__} observes {agent.observation_space}: expected one box. Wrap the "
            "environment in gymnasium.wrappers.FlattenObservation and train there"
        )
    net = getattr(agent.actor, "net", None)
    if isinstance(net, MLP) and not net.plain():
        raise ConfigError(
            f"the actor of {type(agent).__name__} consists of {[type(part).__name__ for part in net]}: expected linear "
            "layers and activations in turn, as the agent makes them; a part that is not known would be left out"
        )
    if isinstance(agent, DQN) and isinstance(agent.actor, QNetwork) and agent.actor.heads == 1:
        return TrainedActor(net.linears, net.activation, ActionMap.of(agent.action_space), to_array=agent.to_array)
    if not isinstance(agent, SAC | TD3) or net is None:
        raise ConfigError(
            f"{type(agent).__name__} acts by {type(agent.actor).__name__}: expected SAC, TD3, CQL or DQN with their "
            "own networks and one stream; agents with exits have a budget already"
        )
    *hidden, last = net.linears
    mean = first_outputs(last, agent.action_space.shape[0])

    def worth(observation: Tensor, action: Tensor) -> Tensor:
        return agent.critic.smallest_of_own_actions(observation, action[None])[0]

    return TrainedActor(
        [*hidden, mean], net.activation, ActionMap.of(agent.action_space, "squash"), worth, agent.to_array
    )


def first_outputs(layer: nn.Linear, count: int) -> nn.Linear:
    """Return the first ``count`` outputs of ``layer`` as a layer: of a Gaussian policy the means."""
    first = nn.Linear(layer.in_features, count).to(layer.weight)
    with torch.no_grad():
        first.weight.copy_(layer.weight[:count])
        first.bias.copy_(layer.bias[:count])
    return first
