"""What the constructor fuzz calls: public constructors and functions, each with arguments that are right."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from agents import DQN, SAC, TD3, Asymmetric, BexaSAC, Exits, PolyPrune
from agents.behaviour_cloning import BehaviourCloning
from agents.loop.callbacks import Every, StopOnReturn
from agents.loop.evaluate import evaluate_policy
from agents.replay.buffers import ReplayBuffer
from agents.replay.hindsight import GoalSlices, HindsightReplay
from agents.replay.prioritized import PrioritizedReplay
from agents.runs.monitors import Checkpoint, Evaluate
from budget_wrappers.core import Choice
from budget_wrappers.deploy.engines import EnginePolicy
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy, Normalisation
from budget_wrappers.functional.budget_lp import solve_batch_lp, solve_exit_lp
from budget_wrappers.functional.costs import exit_costs, relative_costs, validate_flops
from budget_wrappers.functional.intervals import bootstrap_interval
from budget_wrappers.functional.sparsity import PolynomialSchedule, layer_sparsities
from budget_wrappers.functional.team_lp import solve_team_lp
from budget_wrappers.metering import (
    ComputeMeter,
    count_flops,
    get_meter,
    measure_energy,
    measure_latency,
    profile,
    register_flop_formula,
)
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.masks import ScheduledMasks
from budget_wrappers.modules.surgery import keep_units
from budget_wrappers.policies import (
    AgentPolicy,
    ExitPolicy,
    FunctionPolicy,
    ModulePolicy,
    SubPolicies,
    load_sub_policy,
    register_loader,
    register_sub_policy,
)
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import TrainedActor
from budget_wrappers.selection import coin, fixed, greedy_by_cost, mixture_of_cost, random, shuffled
from budget_wrappers.selection.gates import GateTeacher
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeDelayAction,
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    EarlyExitAction,
    RecordComputeStatistics,
    SubPolicyAction,
)
from budget_wrappers.wrappers import vector as vectors

Target = tuple[Callable[..., Any], Callable[[], dict[str, Any]]]
"""What is called, and what makes its arguments."""


class Agent:
    """Acts as Stable-Baselines3's agents do."""

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[int, None]:
        """Return the first action."""
        return 0, None


def rules() -> list[FunctionPolicy]:
    """Return two sub-policies."""
    return [FunctionPolicy(lambda observation: 0, 10, "lean"), FunctionPolicy(lambda observation: 1, 40, "rich")]


def network() -> EarlyExitNetwork:
    """Return a network with two exits for CartPole."""
    return EarlyExitNetwork(4, 2, (4, 4))


def layers() -> list[nn.Linear]:
    """Return the layers of a perceptron for CartPole."""
    return [nn.Linear(4, 3), nn.Linear(3, 2)]


def cart_pole() -> gym.Env:
    """Return a single environment."""
    return gym.make("CartPole-v1", max_episode_steps=5)


def cart_poles() -> gym.vector.VectorEnv:
    """Return two environments."""
    return gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")


def limited() -> gym.Env:
    """Return an environment with a limit."""
    return ComputeLimit(cart_pole(), 100, "truncate", meter=ComputeMeter())


def on_meter(method: str) -> Callable[..., Any]:
    """Return a method of a new meter as a function."""
    return lambda **given: getattr(ComputeMeter(), method)(**given)


def of_agent(kind: type, env_id: str, **settings: Any) -> Target:
    """Return the constructor of a small agent and all of its settings."""
    small = {"net_arch": (4,), "buffer_size": 50, "batch_size": 4, "learning_starts": 5, "seed": 0, **settings}
    rest = {"gamma": 0.99, "n_step": 1, "reward_scale": 1.0, "train_freq": 1, "device": "cpu"}
    return kind, lambda: {"env": gym.make(env_id), "meter": ComputeMeter(), **rest, **small}


def metering() -> Iterator[tuple[str, Target]]:
    """Yield what meters."""
    row = torch.zeros(1, 2)
    yield "ComputeMeter", (ComputeMeter, lambda: {"name": "fuzz", "convention": "matmul"})
    yield (
        "ComputeMeter.add",
        (
            on_meter("add"),
            lambda: {"flops": 10, "name": "a", "rows": 2, "charged": 10, "by_row": [4, 6]},
        ),
    )
    yield (
        "ComputeMeter.watch",
        (on_meter("watch"), lambda: {"module": nn.Linear(4, 2), "name": "a", "static": True, "shared": False}),
    )
    yield "ComputeMeter.phase", (on_meter("phase"), lambda: {"phase": "learn", "key": "a"})
    yield "get_meter", (get_meter, lambda: {"name": "fuzz.known", "convention": "matmul"})
    yield (
        "count_flops",
        (
            count_flops,
            lambda: {"module_or_fn": nn.Linear(2, 2), "convention": "matmul", "example_kwargs": {"input": row}},
        ),
    )
    yield (
        "measure_latency",
        (measure_latency, lambda: {"call": lambda: None, "samples": 2, "warmup": 1, "threads": 1, "device": "cpu"}),
    )
    yield (
        "measure_energy",
        (measure_energy, lambda: {"call": lambda: None, "seconds": 1e-4, "watts": 5.0, "device": "cpu"}),
    )
    yield (
        "profile",
        (
            profile,
            lambda: (
                {"policy": rules()[0], "obs": np.zeros(2, np.float32), "hz": 50.0, "samples": 2, "warmup": 1}
                | {"threads": 1}
                | {"watts": 5.0, "energy_seconds": 1e-4, "name": "a", "convention": "matmul"}
            ),
        ),
    )
    yield "register_flop_formula", (register_flop_formula, lambda: {"op": torch.ops.aten.sin, "formula": lambda *a: 1})


def policies() -> Iterator[tuple[str, Target]]:
    """Yield what makes and picks sub-policies."""
    example = np.zeros(4, np.float32)
    yield "FunctionPolicy", (FunctionPolicy, lambda: {"function": lambda o: 0, "flops": 10, "name": "a"})
    yield (
        "AgentPolicy",
        (AgentPolicy, lambda: {"agent": Agent(), "flops": 9, "name": "a", "deterministic": True, "batched": False}),
    )
    yield (
        "ModulePolicy",
        (
            ModulePolicy,
            lambda: (
                {"module": nn.Linear(4, 2), "act": lambda net, o: net(o).argmax(-1), "example": example}
                | {"name": "a", "flops": 100}
            ),
        ),
    )
    yield "SubPolicies", (SubPolicies, lambda: {"sub_policies": rules()})
    yield "register_sub_policy", (register_sub_policy, lambda: {"name": "fuzz", "factory": rules})
    yield "register_loader", (register_loader, lambda: {"scheme": "fuzz", "loader": rules})
    yield "load_sub_policy", (load_sub_policy, lambda: {"reference": "unknown"})
    yield (
        "ExitPolicy",
        (ExitPolicy, lambda: {"network": network(), "act": np.argmax, "to_array": np.asarray, "at": None}),
    )
    yield "fixed", (fixed, lambda: {"k": 0, "duration": 1})
    yield "random", (random, lambda: {"count": 2, "generator": np.random.default_rng(0), "duration": 1})
    yield "coin", (coin, lambda: {"probabilities": [0.5, 0.5], "generator": np.random.default_rng(0), "duration": 1})
    yield "shuffled", (shuffled, lambda: {"choices": [Choice(0)], "generator": np.random.default_rng(0)})
    yield "mixture_of_cost", (mixture_of_cost, lambda: {"flops": [1, 2], "shares": [0.5, 0.5], "mean_flops": 1.5})
    yield "greedy_by_cost", (greedy_by_cost, lambda: {"flops": [1, 2], "budget": 1.5, "duration": 1})
    yield (
        "GateTeacher",
        (
            GateTeacher,
            lambda: (
                {"flops": [1, 2], "budget": 0.5, "training": "budget", "loss": "per_gate", "temperature": 1.0}
                | {"fraction": 0.9, "feedback": 0.0}
            ),
        ),
    )
    yield (
        "EarlyExitNetwork",
        (
            EarlyExitNetwork,
            lambda: (
                {"inputs": 4, "outputs": 2, "hidden": (4, 4), "exit_after": (1, 2), "activation": "relu"}
                | {"reads_budget": False}
            ),
        ),
    )
    yield (
        "ActionMap",
        (ActionMap, lambda: {"meaning": "clip", "low": (-1.0,), "high": (1.0,), "start": 0, "dtype": "float32"}),
    )
    yield (
        "TrainedActor",
        (
            TrainedActor,
            lambda: (
                {"layers": layers(), "activation": "relu", "action_map": ActionMap("argmax"), "worth": None}
                | {"to_array": np.asarray}
            ),
        ),
    )
    yield (
        "Normalisation",
        (Normalisation, lambda: {"mean": np.zeros(4), "std": np.ones(4), "bound": 10.0}),
    )
    yield (
        "BudgetedExitPolicy",
        (
            BudgetedExitPolicy,
            lambda: (
                {"network": network(), "action_map": ActionMap("argmax"), "budget": 0.5, "normalisation": None}
                | {"meter": ComputeMeter(), "seed": 0, "concatenation": None}
            ),
        ),
    )
    actor = TrainedActor(layers(), "relu", ActionMap("argmax"))
    yield "EnginePolicy", (EnginePolicy, lambda: {"actor": actor, "engine": "numpy", "meter": ComputeMeter()})
    yield (
        "ScheduledMasks",
        (
            ScheduledMasks,
            lambda: (
                {"network": nn.Sequential(*layers()), "schedule": PolynomialSchedule(0.1, 0.9, 0.5)}
                | {"distribution": "erk"}
            ),
        ),
    )
    yield (
        "keep_units",
        (keep_units, lambda: dict(zip(("layer", "following"), layers(), strict=True)) | {"keep": [0, 1]}),
    )


def functions() -> Iterator[tuple[str, Target]]:
    """Yield pure functions."""
    values, costs = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0.0, 1.0])
    yield "validate_flops", (validate_flops, lambda: {"flops": [1, 2]})
    yield "relative_costs", (relative_costs, lambda: {"flops": [1, 2]})
    yield "exit_costs", (exit_costs, lambda: {"flops": [1, 2]})
    yield "solve_exit_lp", (solve_exit_lp, lambda: {"values": values, "costs": costs, "budget": 0.5})
    yield "solve_batch_lp", (solve_batch_lp, lambda: {"values": values, "costs": costs, "budget": 0.5})
    yield "solve_team_lp", (solve_team_lp, lambda: {"values": values, "costs": values + 1.0, "budget": 4.0})
    yield (
        "bootstrap_interval",
        (bootstrap_interval, lambda: {"scores": [1.0, 2.0, 3.0], "level": 0.95, "resamples": 10, "seed": 0}),
    )
    yield (
        "PolynomialSchedule",
        (PolynomialSchedule, lambda: {"start": 0.1, "end": 0.9, "final": 0.5, "power": 3.0, "prefix": ""}),
    )
    yield (
        "layer_sparsities",
        (layer_sparsities, lambda: {"shapes": [(4, 3), (3, 2)], "sparsity": 0.5, "distribution": "erk"}),
    )


def wrappers() -> Iterator[tuple[str, Target]]:
    """Yield wrappers of single and of vector environments."""
    penalty = {"weight": 0.1, "floor": None}
    adaptive = {"weight": "auto", "budget": 100.0, "initial_weight": 0.1, "rate": 0.1}
    limit = {"max_flops": 100, "on_exhausted": "truncate", "horizon": 5}
    options = {"hold": 1, "weight": 0.0, "selector": None}
    watched = {"what": "budget", "flatten": True, "scale": None, "draw": None, "dict_key": "budget"}
    delay = {"profile": [(1, 1.0), (2, 2.0)], "period": 1000.0, "percentile": "p50", "initial_action": 0}
    record = {"key": "cost", "stable_info": False}
    for prefix, env, home in (("", cart_pole, None), ("vector.", cart_poles, vectors)):

        def made(kind: Any, env: Any = env, home: Any = home) -> Any:
            return kind if home is None else getattr(home, kind.__name__)

        def meter(env: Any = env, **given: Any) -> Callable[[], dict[str, Any]]:
            return lambda: {"env": env(), "meter": ComputeMeter(), **given}

        if home is not None:
            record = {"key": "cost"}
        yield f"{prefix}RecordComputeStatistics", (made(RecordComputeStatistics), meter(**record))
        yield f"{prefix}ComputePenaltyReward", (made(ComputePenaltyReward), meter(**penalty))
        yield f"{prefix}ComputePenaltyReward(auto)", (made(ComputePenaltyReward), meter(**adaptive))
        yield f"{prefix}ComputeVectorReward", (made(ComputeVectorReward), meter())
        yield f"{prefix}ComputeLimit", (made(ComputeLimit), meter(**limit))
        yield f"{prefix}SubPolicyAction", (made(SubPolicyAction), meter(sub_policies=rules(), **options))
        exits = ExitPolicy(network(), np.argmax)
        yield f"{prefix}EarlyExitAction", (made(EarlyExitAction), meter(policy=exits, **options))
        yield f"{prefix}ComputeDelayAction", (made(ComputeDelayAction), meter(**delay))
    yield "BudgetAwareObservation", (BudgetAwareObservation, lambda: {"env": limited(), **watched})


def learners() -> Iterator[tuple[str, Target]]:
    """Yield agents, methods, replays and callbacks."""
    yield "SAC", of_agent(SAC, "Pendulum-v1", ent_coef="auto", methods=())
    yield "TD3", of_agent(TD3, "Pendulum-v1", policy_delay=2, exploration_noise=0.1)
    yield "DQN", of_agent(DQN, "CartPole-v1", prioritized=True, double=True)
    yield "BexaSAC", of_agent(BexaSAC, "Pendulum-v1", net_arch=(4, 4), budget=0.5)
    yield "BehaviourCloning", of_agent(BehaviourCloning, "CartPole-v1", dataset=None)
    asymmetric = {"small_net_arch": (2,), "net_arch": (4, 4), "weight": 0.1, "hold": 2, "seed": 0, "buffer_size": 50}
    yield "Asymmetric", (Asymmetric, lambda: {"env": gym.make("Pendulum-v1"), "meter": ComputeMeter(), **asymmetric})
    yield "Exits", (Exits, lambda: {"budget": 0.5, "gate": "sample"})
    yield "PolyPrune", (PolyPrune, lambda: {})
    ring = {
        "capacity": 8,
        "observation_shape": (2,),
        "action_shape": (),
        "discrete": True,
        "gamma": 0.9,
        "device": "cpu",
    }
    yield "ReplayBuffer", (ReplayBuffer, lambda: {**ring, "n_step": 2, "reward_scale": 1.0})
    yield "PrioritizedReplay", (PrioritizedReplay, lambda: {**ring, "alpha": 0.6, "beta": 0.4, "floor": 1e-6})
    goals = GoalSlices(slice(0, 1), slice(1, 2))
    yield (
        "HindsightReplay",
        (HindsightReplay, lambda: {**ring, "goals": goals, "reward_of": lambda a, d: a[:, 0], "relabelled": 4}),
    )
    yield "Every", (Every, lambda: {"every": 10})
    yield "StopOnReturn", (StopOnReturn, lambda: {"threshold": 1.0, "episodes": 2})
    yield "Evaluate", (Evaluate, lambda: {"env": cart_pole(), "every": 10, "episodes": 1, "seed": 0})
    yield (
        "Checkpoint",
        (Checkpoint, lambda: {"path": Path(tempfile.gettempdir()) / "fuzz", "every": 10, "replay": True}),
    )
    yield (
        "evaluate_policy",
        (
            evaluate_policy,
            lambda: {"policy": Agent(), "env": cart_pole(), "episodes": 1, "seed": 0, "deterministic": True},
        ),
    )


def targets() -> dict[str, Target]:
    """Return every target by name."""
    return dict((*metering(), *policies(), *functions(), *wrappers(), *learners()))
