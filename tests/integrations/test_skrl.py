"""skrl's agents are metered to the digit, train as without, and come back unchanged."""

import copy
import random
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("skrl")

from skrl import config
from skrl.agents.torch.dqn import DQN
from skrl.agents.torch.ppo import PPO
from skrl.agents.torch.sac import SAC
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer

from budget_wrappers.errors import ConfigError, MeterError, UncountableError
from budget_wrappers.integrations.skrl import as_sub_policy, flops_per_action, metered, unmeter
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

EPISODE, RANDOM, STEPS, BATCH = 20, 10, 55, 16


def body(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, outputs))


class QNetwork(DeterministicMixin, Model):
    def __init__(self, spaces: dict[str, Any]) -> None:
        Model.__init__(self, **spaces, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = body(self.num_observations, self.num_actions)

    def compute(self, inputs: Any, role: str = "") -> Any:
        return self.net(inputs["observations"]), {}


class Gaussian(GaussianMixin, Model):
    def __init__(self, spaces: dict[str, Any]) -> None:
        Model.__init__(self, **spaces, device="cpu")
        GaussianMixin.__init__(self, clip_actions=True)
        self.net, self.log_std = body(self.num_observations, self.num_actions), nn.Parameter(torch.zeros(1))

    def compute(self, inputs: Any, role: str = "") -> Any:
        return 2 * torch.tanh(self.net(inputs["observations"])), {"log_std": self.log_std.expand(self.num_actions)}


class Critic(DeterministicMixin, Model):
    def __init__(self, spaces: dict[str, Any]) -> None:
        Model.__init__(self, **spaces, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = body(self.num_observations + self.num_actions, 1)

    def compute(self, inputs: Any, role: str = "") -> Any:
        return self.net(torch.cat([inputs["observations"], inputs["taken_actions"]], 1)), {}


class Value(QNetwork):
    def __init__(self, spaces: dict[str, Any]) -> None:
        super().__init__(spaces)
        self.net = body(self.num_observations, 1)


class Categorical(CategoricalMixin, Model):
    def __init__(self, spaces: dict[str, Any]) -> None:
        Model.__init__(self, **spaces, device="cpu")
        CategoricalMixin.__init__(self)
        self.net = body(self.num_observations, self.num_actions)

    def compute(self, inputs: Any, role: str = "") -> Any:
        return self.net(inputs["observations"]), {}


class Shared(CategoricalMixin, DeterministicMixin, Model):
    """Policy and value of one body."""

    def __init__(self, spaces: dict[str, Any]) -> None:
        Model.__init__(self, **spaces, device="cpu")
        CategoricalMixin.__init__(self, role="policy")
        DeterministicMixin.__init__(self, role="value")
        self.net, self.policy_head, self.value_head = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 1)

    def act(self, inputs: Any, *, role: str = "") -> Any:
        kind = CategoricalMixin if role == "policy" else DeterministicMixin
        return kind.act(self, inputs, role=role)

    def compute(self, inputs: Any, role: str = "") -> Any:
        features = torch.relu(self.net(inputs["observations"]))
        return (self.policy_head if role == "policy" else self.value_head)(features), {}


def wrapped(env: gym.Env, meter: ComputeMeter | None = None, weight: float = 0.0) -> gym.Env:
    return env if meter is None else RecordComputeStatistics(ComputePenaltyReward(env, weight, meter=meter), meter)


def pendulum(**wrap: Any) -> gym.Env:
    return wrapped(gym.make("Pendulum-v1", max_episode_steps=EPISODE), **wrap)


def cartpole(**wrap: Any) -> gym.Env:
    return wrapped(gym.make("CartPole-v1", max_episode_steps=EPISODE), **wrap)


QUIET = {"experiment": {"write_interval": 0, "checkpoint_interval": 0}}
OFF_POLICY = {**QUIET, "learning_starts": RANDOM, "random_timesteps": RANDOM, "batch_size": BATCH}
PPO_CFG = {**QUIET, "rollouts": 16, "mini_batches": 2, "learning_epochs": 2}


def agent_of(case: str, env: gym.Env) -> Any:
    config.torch.key = 0
    torch.manual_seed(0)
    env.action_space.seed(0)  # random actions are drawn from it
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    common = {**spaces, "device": "cpu", "memory": RandomMemory(memory_size=16 if "ppo" in case else 200, device="cpu")}
    if case == "dqn":
        models = {"q_network": QNetwork(spaces), "target_q_network": QNetwork(spaces)}
        # skrl draws a random action in any case; from the 10th step on the greedy one replaces it.
        return DQN(models=models, cfg={**OFF_POLICY, "exploration_scheduler": lambda step, steps: 0.0}, **common)
    if case == "sac":
        critics = {name: Critic(spaces) for name in ("critic_1", "critic_2", "target_critic_1", "target_critic_2")}
        return SAC(models={"policy": Gaussian(spaces), **critics}, cfg=OFF_POLICY, **common)
    shared = Shared(spaces) if case == "ppo of one body" else None
    models = {"policy": shared or Categorical(spaces), "value": shared or Value(spaces)}
    return PPO(models=models, cfg=PPO_CFG, **common)


ENVS = {"dqn": cartpole, "sac": pendulum, "ppo": cartpole, "ppo of one body": cartpole}


def train(agent: Any, env: gym.Env, steps: int = STEPS, evaluate: bool = False) -> Any:
    cfg = {"timesteps": steps, "headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
    torch.manual_seed(1)
    random.seed(1)  # which the memory draws from
    trainer = SequentialTrainer(env=wrap_env(env, verbose=False), agents=agent, cfg=cfg)
    (trainer.eval if evaluate else trainer.train)()
    return agent


def weights(agent: Any) -> list[torch.Tensor]:
    return [value.clone() for model in agent.models.values() for value in model.state_dict().values()]


def counted_by_torch(agent: Any, env: gym.Env) -> int:
    """Train ``agent`` and return what torch's own counter sees in its updates."""
    total, update = 0, agent.update

    def counted(**kwargs: Any) -> None:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            update(**kwargs)
        total += counter.get_total_flops()

    agent.update = counted
    train(agent, env)
    return total


@pytest.mark.parametrize("case", ENVS)
def test_learning_is_what_torch_counts_and_weights_are_those_of_an_unmetered_run(case: str) -> None:
    meter = ComputeMeter()
    agent = metered(agent_of(case, ENVS[case]()), meter)
    train(agent, ENVS[case](meter=meter))
    plain = agent_of(case, ENVS[case]())
    counted = counted_by_torch(plain, ENVS[case]())
    # Of PPO each step's value is learning, too: 2·(4·8 + 8·8 + 8·1) = 208, or with one body 2·(4·8 + 8·1) = 80.
    values = {"ppo": 208, "ppo of one body": 80}.get(case, 0) * STEPS
    assert meter.totals["learn"] == counted + values
    assert counted > 0
    assert all(torch.equal(a, b) for a, b in zip(weights(agent), weights(plain), strict=True))


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_dqn_by_hand() -> None:
    meter = ComputeMeter()
    agent = metered(agent_of("dqn", cartpole()), meter)
    train(agent, cartpole(meter=meter))
    # CartPole: O = 4, A = 2. One action: 2·(4·8 + 8·8 + 8·2) = 224; the first 10 of 55 steps are random.
    act = 2 * (4 * 8 + 8 * 8 + 8 * 2)
    assert dict(meter.totals.by_name) == {"q_network": 45 * act}
    assert flops_per_action(agent) == act
    # A row: the target's forward, a forward, and a backward pass of twice that but for the observations. A batch has 16
    # rows, the first ones as few as the memory: 11, 12, 13, 14, 15.
    assert meter.totals["learn"] == (11 + 12 + 13 + 14 + 15 + 40 * BATCH) * (4 * act - 2 * 4 * 8)


@pytest.mark.parametrize(("case", "flops"), [("ppo", 224), ("ppo of one body", 2 * (4 * 8 + 8 * 2))])
def test_policy_gradient_acting_is_its_policy_side_alone(case: str, flops: int) -> None:
    meter = ComputeMeter()
    train(metered(agent_of(case, cartpole()), meter), cartpole(meter=meter))
    assert dict(meter.totals.by_name) == {"policy": STEPS * flops}


def test_acting_with_gradients_is_no_learning_and_evaluation_is_acting() -> None:
    meter = ComputeMeter()
    agent = metered(agent_of("sac", pendulum()), meter)
    agent.policy.act({"observations": torch.zeros(3, 3)}, role="policy")
    # Pendulum: O = 3, A = 1: 2·(3·8 + 8·8 + 8·1) = 192, for three observations.
    spend = meter.take()
    assert (spend.executed, spend.learned, spend.rows) == (3 * 192, 0, 3)
    agent.init()
    train(agent, pendulum(meter=meter), steps=EPISODE, evaluate=True)
    assert meter.totals["act"] == (3 + EPISODE - RANDOM) * 192  # evaluation has its random steps, too
    assert meter.totals["learn"] == 0


# ---- returns, budgets -----------------------------------------------------------------------------------------------


def test_raw_and_penalised_return_are_in_info() -> None:
    meter, infos = ComputeMeter(), []
    agent = metered(agent_of("sac", pendulum()), meter)
    record, agent.record_transition = (
        agent.record_transition,
        lambda **kwargs: (infos.append(kwargs["infos"]), record(**kwargs)),
    )
    train(agent, pendulum(meter=meter, weight=0.01))
    accounts = [info["compute"] for info in infos if "compute" in info]
    # 10 random steps in the first episode, and none later, of 192 FLOPs at 0.01 a FLOP.
    lost = [account["return_raw"] - account["return_penalised"] for account in accounts]
    assert lost == pytest.approx([10 * 1.92, 20 * 1.92])


def test_budget_is_set_through_the_library_s_wrapper() -> None:
    meter = ComputeMeter()
    agent = metered(agent_of("dqn", cartpole()), meter)
    limited = ComputeLimit(cartpole(), 10**6, on_exhausted="truncate", meter=meter)
    env = wrap_env(RecordComputeStatistics(limited, meter), verbose=False)
    env.get_wrapper_attr("set_budget")(3 * 224)
    observations, _ = env.reset()
    for step in range(3):
        actions, _ = agent.act(observations, None, timestep=RANDOM + step, timesteps=100)
        observations, _, _, truncated, info = env.step(actions)
    assert truncated.item()
    assert (info["compute"]["limit"], info["compute"]["flops"]) == (672, 672)


# ---- nothing is left behind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["sac", "ppo", "ppo of one body"])
def test_unmeter_leaves_no_trace(case: str) -> None:
    agent, meter = agent_of(case, ENVS[case]()), ComputeMeter()
    targets = [agent, *agent.models.values()]
    before = [(type(target), set(vars(target))) for target in targets]
    assert unmeter(metered(agent, meter)) is agent
    assert [(type(target), set(vars(target))) for target in targets] == before
    assert not any(part._forward_hooks for model in agent.models.values() for part in model.modules())
    train(agent, ENVS[case](), steps=20)
    assert (meter.totals["act"], meter.totals["learn"]) == (0, 0)


def test_copies_and_checkpoints_are_not_metered(tmp_path: Path) -> None:
    meter = ComputeMeter()
    agent = train(metered(agent_of("dqn", cartpole()), meter), cartpole(meter=meter), steps=20)
    twin = copy.deepcopy(agent.models["q_network"])
    assert type(twin) is QNetwork
    before = meter.totals["act"]
    twin.act({"observations": torch.zeros(1, 4)}, role="q_network")
    assert meter.totals["act"] == before
    agent.save(str(tmp_path / "agent.pt"))
    fresh = agent_of("dqn", cartpole())
    fresh.load(str(tmp_path / "agent.pt"))
    assert all(torch.equal(a, b) for a, b in zip(weights(agent), weights(fresh), strict=True))


def test_metering_twice_and_unmetering_nothing_raise() -> None:
    agent = metered(agent_of("dqn", cartpole()), ComputeMeter())
    with pytest.raises(MeterError, match="metered already"):
        metered(agent, ComputeMeter())
    with pytest.raises(MeterError, match="is not metered"):
        unmeter(agent_of("dqn", cartpole()))


def test_what_is_no_agent_is_named() -> None:
    with pytest.raises(ConfigError, match=r"expected an agent of skrl\.agents\.torch .*watch what acts by hand"):
        metered(nn.Linear(1, 1))


class Bare(QNetwork):
    """A model with a product of its own, which no layer runs."""

    def compute(self, inputs: Any, role: str = "") -> Any:
        return inputs["observations"] @ self.net[0].weight.T[:, :2], {}


def test_products_outside_of_layers_are_refused_at_the_first_action() -> None:
    agent = agent_of("dqn", cartpole())
    agent.models["q_network"] = agent.q_network = Bare(
        {"observation_space": agent.observation_space, "action_space": agent.action_space}
    )
    metered(agent, ComputeMeter())
    with pytest.raises(UncountableError, match=r"acting runs 16 FLOPs .*, 0 of them in the layers of q_network"):
        agent.act(torch.zeros(1, 4), None, timestep=RANDOM, timesteps=100)


# ---- as sub-policies, and as the master -----------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "flops"), [("dqn", 224), ("sac", 192), ("ppo", 224), ("ppo of one body", 96)])
def test_each_kind_of_agent_gives_a_sub_policy(case: str, flops: int) -> None:
    env, agent = ENVS[case](), agent_of(case, ENVS[case]())
    observation = np.ones(env.observation_space.shape, np.float32)
    policy, moving = as_sub_policy(agent, case), as_sub_policy(agent, deterministic=False)
    assert (policy.name, policy.flops, moving.name) == (case, flops, type(agent).__name__)
    assert env.action_space.contains(policy(observation))
    assert len({np.asarray(policy(observation)).item() for _ in range(20)}) == 1
    assert (len({np.asarray(moving(observation)).item() for _ in range(60)}) > 1) is (case != "dqn")


def test_deterministic_sub_policy_acts_by_the_mean() -> None:
    agent, observation = agent_of("sac", pendulum()), np.array([1.0, 0.0, 0.5], np.float32)
    expected = 2 * torch.tanh(agent.policy.net(torch.as_tensor(observation)[None]))[0].detach().numpy()
    np.testing.assert_array_equal(as_sub_policy(agent)(observation), expected)


def test_unmodified_dqn_is_the_master_of_sub_policies() -> None:
    meter = ComputeMeter()
    # A sub-policy that is metered itself is charged once, as an option.
    actor = as_sub_policy(metered(agent_of("sac", pendulum()), meter), "actor")
    rest = FunctionPolicy(lambda _: np.zeros(1, np.float32), 10, "rest")
    env = RecordComputeStatistics(SubPolicyAction(pendulum(), [actor, rest], 3, weight=0.1, meter=meter), meter)
    master = metered(agent_of("dqn", env), meter)
    before = weights(master)
    train(master, env, steps=42)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(master), strict=True))
    spent = meter.totals.by_name
    # O = 3, K = 2: 2·(3·8 + 8·8 + 8·2) = 208 a decision; 10 of the 42 are random.
    assert (spent["q_network"], spent["policy"]) == (32 * 208, 0)
    # 7 decisions an episode, 6 of 3 steps and one of 2.
    assert spent["actor"] // 192 + spent["rest"] // 10 == 42 // 7 * EPISODE
