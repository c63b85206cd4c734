"""TorchRL: policy modules are metered to the digit, train as without, and tensordicts hold what acting costs."""

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

pytest.importorskip("torchrl")

with warnings.catch_warnings():
    # Importing the collectors warns of classes of TorchRL's own that it deprecates.
    warnings.filterwarnings("ignore", message="Creating .* which inherits from WeightUpdaterBase")
    from torchrl.collectors import Collector

from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from tensordict.nn.distributions import NormalParamExtractor
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import Compose, GymWrapper, ObservationNorm, RewardSum, TransformedEnv
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type
from torchrl.modules import MLP, EGreedyModule, ProbabilisticActor, QValueActor, TanhNormal, ValueOperator
from torchrl.objectives import DQNLoss, SACLoss, SoftUpdate

from budget_wrappers.errors import ConfigError, MeterError, UncountableError
from budget_wrappers.integrations.torchrl import (
    as_sub_policy,
    flops_per_action,
    learning,
    metered,
    unmeter,
    wrap_env,
)
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

EPISODE, BATCH = 20, 16
# CartPole: O = 4, A = 2: 2·(4·8 + 8·8 + 8·2) = 224.
CARTPOLE = 224
# Pendulum: O = 3, both heads: 2·(3·8 + 8·8 + 8·2) = 208.
PENDULUM = 208


def cartpole(meter: ComputeMeter | None = None, weight: float | None = None) -> gym.Env:
    env = gym.make("CartPole-v1", max_episode_steps=EPISODE)
    if weight is not None:
        env = ComputePenaltyReward(env, weight=weight, meter=meter)
    return env if meter is None else RecordComputeStatistics(env, meter)


def q_policy(env: Any, width: int = 8, epsilon: float = 0.5) -> TensorDictSequential:
    actions = env.action_spec.shape[-1]
    size = env.observation_spec["observation"].shape[-1]
    net = MLP(in_features=size, out_features=actions, num_cells=[width, width])
    greedy = QValueActor(net, in_keys=["observation"], spec=env.action_spec)
    return TensorDictSequential(greedy, EGreedyModule(spec=env.action_spec, eps_init=epsilon, eps_end=epsilon))


def pendulum_actor(env: Any, width: int = 8) -> ProbabilisticActor:
    net = MLP(in_features=3, out_features=2, num_cells=[width, width])
    params = TensorDictModule(nn.Sequential(net, NormalParamExtractor()), ["observation"], ["loc", "scale"])
    bounds = {"low": env.action_spec.space.low, "high": env.action_spec.space.high}
    return ProbabilisticActor(
        params, ["loc", "scale"], spec=env.action_spec, distribution_class=TanhNormal, distribution_kwargs=bounds
    )


def train_dqn(env: gym.Env, meter: ComputeMeter | None = None, frames: int = 60) -> tuple[Any, Any, int]:
    """Train as TorchRL's tutorials do; return the policy, what was collected, and torch's count of the updates."""
    torch.manual_seed(0)
    env.reset(seed=0)
    env = GymWrapper(env) if meter is None else wrap_env(env)
    policy = q_policy(env)
    if meter is not None:
        metered(policy, meter)
    loss_module = DQNLoss(policy[0], action_space=env.action_spec, delay_value=True)
    loss_module.make_value_estimator(gamma=0.99)
    target, optimizer = SoftUpdate(loss_module, eps=0.9), torch.optim.Adam(loss_module.parameters())
    buffer = ReplayBuffer(storage=LazyTensorStorage(1000), batch_size=BATCH)
    collected, counted = [], 0
    for _ in range(frames // 10):
        data = env.rollout(10, policy, break_when_any_done=False)
        collected.append(data)
        buffer.extend(data.select("observation", "action", "next"))
        if len(buffer) < BATCH:
            continue
        batch = buffer.sample()
        if meter is None:
            with CountedByTorch() as counter:
                loss_module(batch)["loss"].backward()
            counted += counter.flops
        else:
            with learning(policy, key=f"dqn {BATCH}"):
                loss_module(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        target.step()
    return policy, torch.cat(collected), counted


class CountedByTorch(TorchDispatchMode):
    """Adds torch's own formulas; its FlopCounterMode cannot look into TorchRL's losses."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        self.flops += formula(*args, **(kwargs or {}), out_val=out) if formula else 0
        return out


def weights(policy: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in policy.state_dict().values()]


def test_a_metered_run_with_a_penalty_of_0_is_the_unwrapped_run() -> None:
    meter = ComputeMeter()
    policy, data, _ = train_dqn(cartpole(meter, weight=0.0), meter)
    plain, plain_data, counted = train_dqn(cartpole())
    assert all(torch.equal(a, b) for a, b in zip(weights(policy), weights(plain), strict=True))
    for key in ("observation", "action", ("next", "reward"), ("next", "done")):
        assert torch.equal(data[key], plain_data[key]), key
    # ε-greedy computes the values at every step, and rollout does so with gradients on.
    assert dict(meter.totals.by_name) == {"policy": 60 * CARTPOLE}
    # 5 updates, the first after 20 frames. Forward of the network and of its target: 2·16·224; backward to the weights:
    # 16·224 and to the inputs of all layers but the first: 16·2·(8·8 + 8·2).
    assert meter.totals["learn"] == counted == 5 * 16 * (3 * CARTPOLE + 160)


def test_cost_is_in_every_tensordict_and_0_at_reset() -> None:
    meter = ComputeMeter()
    env = wrap_env(cartpole(meter, weight=0.001))
    check_env_specs(env)
    policy = metered(q_policy(env), meter)
    data = env.rollout(EPISODE, policy)
    assert data["cost"].shape == data["next", "reward"].shape
    assert float(data[0]["cost"]) == 0.0
    assert set(data["next", "cost"].flatten().tolist()) == {float(CARTPOLE)}
    steps = len(data)
    report = data[-1]["next", "compute"]
    assert float(report["flops"]) == steps * CARTPOLE
    # A reward of 1 a step, less 0.001 a FLOP.
    assert float(report["return_raw"]) == steps
    assert float(report["return_penalised"]) == pytest.approx(steps * (1 - 0.001 * CARTPOLE))
    assert float(data["next", "reward"].sum()) == pytest.approx(float(report["return_penalised"]))
    assert float(data["compute", "return_raw"].abs().sum()) == 0.0


def test_collector_charges_each_frame_and_one_look_at_the_policy() -> None:
    meter = ComputeMeter()
    env = wrap_env(cartpole(meter))
    policy = metered(q_policy(env), meter)
    collector = Collector(
        env, policy, frames_per_batch=30, total_frames=60, auto_register_policy_transforms=False, trust_policy=True
    )
    data = torch.cat(list(collector))
    collector.shutdown()
    assert meter.totals["act"] == 61 * CARTPOLE
    assert set(data["next", "cost"].flatten().tolist()[1:]) == {float(CARTPOLE)}


def test_continuous_policy_and_a_loss_with_vmap_are_counted() -> None:
    meter = ComputeMeter()
    torch.manual_seed(0)
    env = wrap_env(RecordComputeStatistics(gym.make("Pendulum-v1", max_episode_steps=EPISODE), meter))
    actor = metered(pendulum_actor(env), meter)
    data = env.rollout(EPISODE, actor).detach()  # as a buffer would hold it
    assert meter.totals["act"] == EPISODE * PENDULUM == EPISODE * flops_per_action(actor, env)
    critic = ValueOperator(MLP(in_features=4, out_features=1, num_cells=[8]), ["observation", "action"])
    loss_module = SACLoss(actor, critic)
    loss_module.make_value_estimator(gamma=0.99)
    SoftUpdate(loss_module, eps=0.99)
    with CountedByTorch() as counter:
        losses = loss_module(data)
        sum(losses[f"loss_{part}"] for part in ("actor", "qvalue", "alpha")).backward()
    meter.reset_totals()
    with learning(actor):
        losses = loss_module(data)
        sum(losses[f"loss_{part}"] for part in ("actor", "qvalue", "alpha")).backward()
    assert meter.totals["learn"] == counter.flops > 0
    assert meter.totals["act"] == 0


def test_loss_outside_of_learning_is_refused_by_the_wrappers() -> None:
    meter = ComputeMeter()
    env = wrap_env(cartpole(meter))
    policy = metered(q_policy(env), meter)
    data = env.rollout(5, policy)
    policy(data.select("observation"))
    with pytest.raises(MeterError, match="batch"):
        env.rollout(5, policy, auto_reset=False, tensordict=data[-1].select("observation"))


# ---- nothing is left behind -----------------------------------------------------------------------------------------


def test_unmeter_leaves_no_trace() -> None:
    env = GymWrapper(cartpole())
    policy = q_policy(env)
    kind, before = type(policy), dict(vars(policy))
    assert unmeter(metered(policy, ComputeMeter())) is policy
    assert type(policy) is kind
    assert vars(policy) == before
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in policy.modules())


def test_copies_and_pickles_are_not_metered() -> None:
    meter = ComputeMeter()
    env = GymWrapper(cartpole())
    policy = metered(q_policy(env), meter)
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert type(twin) is TensorDictSequential
        twin(env.reset())
        assert meter.totals["act"] == 0
    assert policy.meter is meter


def test_metering_twice_and_unmetering_nothing_raise() -> None:
    env = GymWrapper(cartpole())
    policy = metered(q_policy(env), ComputeMeter())
    with pytest.raises(MeterError, match="metered already"):
        metered(policy)
    for action in (unmeter, learning):
        with pytest.raises(MeterError, match="not metered"):
            action(q_policy(env))


def test_what_is_no_policy_module_is_named() -> None:
    env = GymWrapper(cartpole())
    for candidate in (nn.Linear(4, 2), object(), DQNLoss(q_policy(env)[0], action_space=env.action_spec)):
        with pytest.raises(ConfigError, match=r"expected the TensorDictModule that acts .*QValueActor"):
            metered(candidate)


def test_products_outside_of_layers_are_refused() -> None:
    matrix = torch.ones(4, 2)
    policy = metered(TensorDictModule(lambda x: x @ matrix, ["observation"], ["action"]), ComputeMeter())
    with pytest.raises(UncountableError, match="16 FLOPs"):  # 2·4·2
        policy(TensorDict({"observation": torch.zeros(1, 4)}, [1]))


# ---- budgets --------------------------------------------------------------------------------------------------------


def test_budget_is_set_at_run_time_through_transforms() -> None:
    meter = ComputeMeter()
    limit = ComputeLimit(gym.make("CartPole-v1"), 10 * CARTPOLE, on_exhausted="truncate", meter=meter)
    env = TransformedEnv(wrap_env(RecordComputeStatistics(limit, meter)), RewardSum())
    policy = metered(q_policy(env), meter)
    for steps in (3, 5):
        start = env.reset(options={"budget": steps * CARTPOLE})
        data = env.rollout(EPISODE, policy, auto_reset=False, tensordict=start)
        assert len(data) == steps
        assert bool(data[-1]["next", "truncated"])


# ---- as sub-policies, and as the master -----------------------------------------------------------------------------


def test_policy_as_sub_policy_acts_as_it_does_in_its_environment() -> None:
    env = GymWrapper(gym.make("Pendulum-v1"))
    actor = pendulum_actor(env)
    policy = as_sub_policy(actor, env, "sac")
    assert (policy.name, policy.flops) == ("sac", PENDULUM)
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = actor(TensorDict({"observation": torch.as_tensor(observation)}, []))["action"].numpy()
    np.testing.assert_array_equal(policy(observation), expected)
    explored = as_sub_policy(actor, env, deterministic=False)
    assert explored.name == "ProbabilisticActor"
    assert len({float(explored(observation)[0]) for _ in range(5)}) == 5


def test_sub_policy_transforms_observations_as_training_did() -> None:
    base = GymWrapper(gym.make("Pendulum-v1"))
    norm = ObservationNorm(loc=1.0, scale=2.0, in_keys=["observation"])
    env = TransformedEnv(base, Compose(norm, RewardSum()))
    actor, observation = pendulum_actor(base), np.array([1.0, 0.0, 0.5], np.float32)
    expected = as_sub_policy(actor, base)(2 * observation + 1)
    np.testing.assert_array_equal(as_sub_policy(actor, env)(observation), expected)


def test_discrete_sub_policy_returns_an_index() -> None:
    env = GymWrapper(cartpole())
    policy = as_sub_policy(q_policy(env, epsilon=1.0), env, "q")
    chosen = {int(policy(np.zeros(4, np.float32))) for _ in range(10)}
    assert len(chosen) == 1  # exploration is off
    assert policy.flops == CARTPOLE


def test_dqn_is_the_master_of_sub_policies() -> None:
    meter = ComputeMeter()
    torch.manual_seed(0)
    inner = GymWrapper(gym.make("Pendulum-v1"))
    small = as_sub_policy(pendulum_actor(inner), inner, "small")
    large = as_sub_policy(pendulum_actor(inner, 16), inner, "large")
    pendulum = gym.make("Pendulum-v1", max_episode_steps=EPISODE)
    options = SubPolicyAction(pendulum, [small, large], hold=3, weight=0.1, meter=meter)
    env = RecordComputeStatistics(options, meter)
    policy, data, _ = train_dqn(env, meter, frames=40)
    # O = 3, K = 2: 2·(3·8 + 8·8 + 8·2) = 208 a decision; the rest are the sub-policies' primitive steps.
    spent = meter.totals.by_name
    assert set(spent) == {"small", "large", "policy"}
    assert spent["policy"] == 40 * PENDULUM
    chosen = data["action"].argmax(-1).tolist()  # cheapest first
    assert set(chosen) == {0, 1}
    assert float(data["next", "cost"].sum()) == sum(spent.values())
    torch.manual_seed(0)
    untrained = weights(q_policy(wrap_env(env)))
    assert any(not torch.equal(a, b) for a, b in zip(weights(policy), untrained, strict=True))


def test_meter_by_name() -> None:
    env = GymWrapper(cartpole())
    policy = metered(q_policy(env), "test.torchrl")
    policy(env.reset())
    assert get_meter("test.torchrl").totals["act"] == CARTPOLE
    unmeter(policy)
