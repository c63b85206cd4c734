"""Weights that are not numbers: whoever acts, loads, saves, logs or stops learning with them is told, by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agents import SAC, Exits
from agents.behaviour_cloning import BehaviourCloning
from agents.loop.checkpoint import save_agent
from agents.runs.log import RunFolder
from agents.runs.monitors import Evaluate, Log
from budget_wrappers.deploy.engines import EnginePolicy
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.errors import CheckpointError, NonFiniteError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy, ModulePolicy
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import TrainedActor
from tests.agents.small import CASES, SETTINGS, make_agent, make_env
from tests.agents.test_damaged_checkpoint import crafted

POLICIES = ["sac", "td3", "dqn"]


def poison(module: nn.Module, value: float = np.nan) -> None:
    """Make one weight of each tensor ``value``."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.view(-1)[0] = value


def observation_of(name: str) -> np.ndarray:
    return make_env(CASES[name][1]).observation_space.sample()


# ---- acting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("deterministic", [True, False])
def test_diverged_policy_is_named_when_it_predicts(name: str, deterministic: bool) -> None:
    agent = make_agent(name)
    agent.total_timesteps, agent.num_timesteps = 100, 100  # a DQN explores no longer
    agent.rng = np.random.default_rng(1)
    poison(agent.actor)
    with pytest.raises(NonFiniteError, match=r"the policy's weights are not finite \(\w+/.*earlier checkpoint"):
        for _ in range(10):
            agent.predict(observation_of(name), deterministic=deterministic)


@pytest.mark.parametrize("name", POLICIES)
def test_diverged_policy_with_early_exits_is_named(name: str) -> None:
    agent = make_agent(name, methods=[Exits(budget=0.5)], **({"dueling": False} if name == "dqn" else {}))
    poison(agent.actor)
    with pytest.raises(NonFiniteError, match=r"the policy's weights are not finite"):
        agent.predict(observation_of(name))


def test_exploring_blames_the_policy_and_not_the_environment() -> None:
    agent = make_agent("sac").learn(45)
    poison(agent.actor)
    with pytest.raises(NonFiniteError, match=r"policy of SAC .* at environment step 45: the policy's weights"):
        agent.learn(5)


def test_policy_that_is_whole_blames_the_observation() -> None:
    agent = make_agent("sac")
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter.fill_(1e5)
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"weights are finite.*NormalizeObservation"):
        agent.predict(np.full(3, 3e38, np.float32))


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a SAC agent that has learnt a little, with its replay."""
    return save_agent(make_agent("sac").learn(45), tmp_path_factory.mktemp("saved") / "agent", replay=True)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("module/actor/", np.nan),
        ("module/target_critic/", np.inf),
        ("optimizer/", -np.inf),
        ("replay/reward", np.nan),
    ],
)
def test_checkpoint_with_numbers_that_are_not_finite_is_refused(
    entry: str, value: float, saved: Path, tmp_path: Path
) -> None:

    def change(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = next(n for n, t in tensors.items() if n.startswith(entry) and t.is_floating_point() and t.numel() > 1)
        tensors[name].view(-1)[1] = value

    with pytest.raises(CheckpointError, match=r"holds NaN or infinity in .*earlier checkpoint"):
        SAC.load(crafted(saved, tmp_path / "crafted.safetensors", change), None)


def test_saving_a_diverged_agent_keeps_the_earlier_file(tmp_path: Path) -> None:
    agent = make_agent("td3")
    path = save_agent(agent, tmp_path / "agent")
    whole = path.read_bytes()
    poison(agent.critic)
    with pytest.raises(NonFiniteError, match=r"weights of TD3 are not finite \(critic/"):
        agent.save(path)
    assert path.read_bytes() == whole


def test_temperature_of_0_is_saved_and_loaded_though_its_logarithm_is_infinite(tmp_path: Path) -> None:
    agent = make_agent("sac", ent_coef=0.0).learn(45)
    loaded = SAC.load(save_agent(agent, tmp_path / "agent"), None)
    assert float(loaded.log_ent_coef) == -np.inf


# ---- noticing while learning ----------------------------------------------------------------------------------------


def test_learning_does_not_end_in_silence_with_a_critic_that_has_diverged() -> None:
    agent = make_agent("sac", train_freq=1000)
    with pytest.raises(NonFiniteError, match=r"weights of SAC are not finite \(critic/.*after update"):
        agent.learn(50, lambda agent: poison(agent.critic))


def test_learning_offline_does_not_end_in_silence_with_weights_that_are_not_finite() -> None:
    agent = BehaviourCloning(make_env("Pendulum-v1"), **SETTINGS)
    fill = {name: np.zeros((20, 3), np.float32) for name in ("observation", "next_observation")}
    flags = {"terminated": np.zeros(20, bool), "truncated": np.zeros(20, bool)}
    agent.replay = type(agent.replay)(20, (3,), (1,))
    agent.replay.fill(type("T", (), {**fill, **flags, "action": np.zeros((20, 1)), "reward": np.zeros(20)}))
    with pytest.raises(NonFiniteError, match=r"weights of BehaviourCloning are not finite \(actor/.*after update 3"):
        agent.learn(3, lambda agent: poison(agent.actor))


def test_log_names_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    agent = make_agent("sac").learn(45)
    agent.metrics["critic_loss"] = torch.tensor(np.inf)
    with RunFolder(tmp_path / "run", {}) as folder:
        log = Log(folder)
        log.on_training_start(agent)
        with pytest.raises(NonFiniteError, match=r"critic_loss=inf in update \d+ of SAC"):
            log.write(agent)


def test_evaluation_names_a_network_that_does_not_act_and_has_diverged() -> None:
    agent = make_agent("sac")
    poison(agent.target_critic)
    with pytest.raises(NonFiniteError, match=r"not finite \(target_critic/"):
        Evaluate(make_env("Pendulum-v1"), every=10, episodes=1).evaluate(agent)


# ---- policies made of modules ---------------------------------------------------------------------------------------


def test_adapters_of_modules_refuse_weights_that_are_not_finite() -> None:
    net, exits = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), EarlyExitNetwork(3, 2, (4, 4))
    poison(net)
    poison(exits)
    argmax = ActionMap("argmax")
    for make in (
        lambda: ModulePolicy(net, lambda n, o: n(o).argmax(-1), example=np.zeros(3, np.float32)),
        lambda: ExitPolicy(exits, np.argmax),
        lambda: BudgetedExitPolicy(exits, argmax, 0.5),
        lambda: EnginePolicy(TrainedActor([net[0], net[2]], "relu", argmax), "numpy"),
    ):
        with pytest.raises(NonFiniteError, match=r"weights of .* are not finite \("):
            make()


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_engines_name_weights_that_have_become_infinite(engine: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    policy = EnginePolicy(TrainedActor([net[0], net[2]], "relu", ActionMap("argmax")), engine)
    exits = EarlyExitNetwork(3, 2, (4, 4))
    deployed = BudgetedExitPolicy(exits, ActionMap("argmax"), 0.5)
    poison(net)
    poison(exits)
    for acting in (policy, deployed):
        with pytest.raises(NonFiniteError, match=r"weights of the policy are not finite"):
            acting.predict(np.ones(3, np.float32))
