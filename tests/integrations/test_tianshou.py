"""Tianshou's algorithms are metered to the digit, train as without, and come back unchanged."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("tianshou")

from tianshou.algorithm import A2C, DDPG, DQN, PPO, SAC, TD3
from tianshou.algorithm.modelfree.ddpg import ContinuousDeterministicPolicy
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.modelfree.sac import SACPolicy
from tianshou.algorithm.multiagent.marl import MultiAgentPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams, OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorDeterministic, ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

from budget_wrappers.errors import ConfigError, MeterError, SpaceError, UncountableError
from budget_wrappers.integrations.tianshou import as_sub_policy, flops_per_action, metered, unmeter
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, RecordComputeStatistics, SubPolicyAction

EPISODE, RANDOM, STEPS, BATCH, HIDDEN = 20, 10, 45, 16, (8, 8)
ADAM = AdamOptimizerFactory(lr=1e-3)


def pendulum(**wrap: Any) -> gym.Env:
    return wrapped(gym.make("Pendulum-v1", max_episode_steps=EPISODE), **wrap)


def cartpole(**wrap: Any) -> gym.Env:
    return wrapped(gym.make("CartPole-v1", max_episode_steps=EPISODE), **wrap)


def wrapped(env: gym.Env, meter: ComputeMeter | None = None, weight: float = 0.0) -> gym.Env:
    return env if meter is None else RecordComputeStatistics(ComputePenaltyReward(env, weight, meter=meter), meter)


def body(inputs: int, concat: bool = False) -> Net:
    return Net(state_shape=inputs, action_shape=1 if concat else 0, hidden_sizes=HIDDEN, concat=concat)


def spaces_of(env: gym.Env) -> dict[str, Any]:
    return {"action_space": env.action_space, "observation_space": env.observation_space}


def dqn(env: gym.Env, eps: float = 0.0, **settings: Any) -> DQN:
    net = Net(
        state_shape=env.observation_space.shape[0],
        action_shape=int(env.action_space.n),
        hidden_sizes=settings.pop("hidden_sizes", HIDDEN),
    )
    policy = DiscreteQLearningPolicy(model=net, eps_training=eps, **spaces_of(env))
    return DQN(policy=policy, optim=ADAM, target_update_freq=5, **settings)


def sac(env: gym.Env, hidden_sizes: tuple[int, ...] = HIDDEN) -> SAC:
    net = Net(state_shape=env.observation_space.shape[0], hidden_sizes=hidden_sizes)
    actor = ContinuousActorProbabilistic(
        preprocess_net=net, action_shape=env.action_space.shape, unbounded=True, conditioned_sigma=True
    )
    critic = ContinuousCritic(preprocess_net=body(3, concat=True))
    policy = SACPolicy(actor=actor, **spaces_of(env))
    return SAC(policy=policy, policy_optim=ADAM, critic=critic, critic_optim=ADAM, critic2_optim=ADAM)


def deterministic(kind: type) -> Callable[[gym.Env], Any]:
    def make(env: gym.Env) -> Any:
        actor = ContinuousActorDeterministic(preprocess_net=body(3), action_shape=env.action_space.shape)
        critic = ContinuousCritic(preprocess_net=body(3, concat=True))
        policy = ContinuousDeterministicPolicy(actor=actor, exploration_noise="default", **spaces_of(env))
        return kind(policy=policy, policy_optim=ADAM, critic=critic, critic_optim=ADAM)

    return make


def on_policy(kind: type) -> Callable[[gym.Env], Any]:
    def make(env: gym.Env) -> Any:
        actor = DiscreteActor(preprocess_net=body(4), action_shape=env.action_space.n, softmax_output=False)
        policy = DiscreteActorPolicy(actor=actor, **spaces_of(env))
        return kind(policy=policy, critic=DiscreteCritic(preprocess_net=body(4)), optim=ADAM)

    return make


class OwnUpdate(DQN):
    """A subclass whose updates nobody knows: every second one runs a network once more."""

    def _update_with_batch(self, batch: Any) -> Any:
        if self._iter % 2:
            self.policy(batch)
        return super()._update_with_batch(batch)


def own_update(env: gym.Env) -> OwnUpdate:
    plain = dqn(env)
    return OwnUpdate(policy=plain.policy, optim=ADAM, target_update_freq=5)


CASES: dict[str, tuple[Callable[..., gym.Env], Callable[[gym.Env], Any]]] = {
    "dqn": (cartpole, lambda env: dqn(env, eps=0.2)),
    "dqn of a subclass": (cartpole, own_update),
    "sac": (pendulum, sac),
    "ddpg": (pendulum, deterministic(DDPG)),
    "td3": (pendulum, deterministic(TD3)),
    "a2c": (cartpole, on_policy(A2C)),
    "ppo": (cartpole, on_policy(PPO)),
}


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - Tianshou draws from it


def made(case: str, **wrap: Any) -> tuple[Any, Collector]:
    env_of, algorithm_of = CASES[case]
    seeded()
    algorithm = algorithm_of(env_of())
    return algorithm, collector_of(algorithm, lambda: env_of(**wrap))


def collector_of(algorithm: Any, env_of: Callable[[], gym.Env], envs: int = 1) -> Collector:
    vector = DummyVectorEnv([env_of] * envs)
    vector.seed(0)
    return Collector(algorithm, vector, VectorReplayBuffer(200, envs), exploration_noise=True)


def train(algorithm: Any, collector: Collector, steps: int = STEPS, start: int = RANDOM) -> Any:
    """Collect ``start`` random steps, off-policy, then ``steps`` in rounds of 5, each followed by its updates."""
    common = {"training_collector": collector, "max_epochs": 1, "epoch_num_steps": steps, "batch_size": BATCH}
    common |= {"collection_step_num_env_steps": 15, "verbose": False, "show_progress": False}
    collector.reset()
    if isinstance(algorithm, A2C):
        params: Any = OnPolicyTrainerParams(**common, update_step_num_repetitions=2)
    else:
        if start:
            collector.collect(n_step=start, random=True)
        params = OffPolicyTrainerParams(**common, update_step_num_gradient_steps_per_sample=0.4)
    algorithm.run_training(params)
    return algorithm


def weights(algorithm: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in torch.nn.Module.state_dict(algorithm).values() if torch.is_tensor(tensor)]


def counted_by_torch(algorithm: Any, collector: Collector) -> int:
    """Train ``algorithm`` and return what torch's own counter sees in its updates."""
    total, update = 0, algorithm.update

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            stats = update(*args, **kwargs)
        total += counter.get_total_flops()
        return stats

    algorithm.update = counted
    train(algorithm, collector)
    return total


@pytest.mark.parametrize("case", CASES)
def test_learning_is_what_torch_counts_and_numbers_are_those_of_an_unmetered_run(case: str) -> None:
    meter = ComputeMeter()
    algorithm, collector = made(case, meter=meter)
    train(metered(algorithm, meter), collector)
    plain, plain_collector = made(case)
    counted = counted_by_torch(plain, plain_collector)
    assert meter.totals["learn"] == counted > 0
    assert all(torch.equal(a, b) for a, b in zip(weights(algorithm), weights(plain), strict=True))
    np.testing.assert_array_equal(collector.buffer.obs, plain_collector.buffer.obs)


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_dqn_by_hand() -> None:
    meter = ComputeMeter()
    algorithm, collector = made("dqn", meter=meter)
    train(metered(algorithm, meter), collector)
    # CartPole: O = 4, A = 2. One action: 2·(4·8 + 8·8 + 8·2) = 224; the first 10 of the 55 steps are random, and
    # exploration replaces an action after it was computed.
    act = 2 * (4 * 8 + 8 * 8 + 8 * 2)
    assert dict(meter.totals.by_name) == {"model": STEPS * act}
    assert flops_per_action(algorithm) == act
    # An update's batch of 16: the online network picks next actions, the target network values them, the online one is
    # run with gradients, and its backward pass costs twice that but for the observations, which need no gradient.
    update = BATCH * (3 * act + 2 * act - 2 * 4 * 8)
    assert meter.totals["learn"] == 3 * 6 * update  # 3 rounds of 15 steps, 0.4 updates a step


def test_sac_acting_is_its_actor_alone() -> None:
    meter = ComputeMeter()
    algorithm, collector = made("sac", meter=meter)
    train(metered(algorithm, meter), collector)
    # Pendulum: O = 3, A = 1, both heads: 2·(3·8 + 8·8 + 2·8·1) = 208.
    assert (flops_per_action(algorithm), dict(meter.totals.by_name)) == (208, {"actor": STEPS * 208})


def test_acting_with_gradients_is_no_learning() -> None:
    meter = ComputeMeter()
    algorithm, _ = made("sac")
    metered(algorithm, meter).policy.compute_action(np.zeros(3, np.float32))
    assert (meter.totals["act"], meter.totals["learn"]) == (208, 0)


def test_a_batch_of_environments_is_as_many_observations() -> None:
    meter = ComputeMeter()
    algorithm, _ = made("dqn")
    collector = collector_of(metered(algorithm, meter), cartpole, envs=3)
    collector.reset()
    collector.collect(n_step=6)
    spend = meter.take()
    assert (spend.executed, spend.rows) == (6 * 224, 3)


# ---- returns, budgets -----------------------------------------------------------------------------------------------


def test_raw_and_penalised_return_are_in_the_buffer() -> None:
    meter = ComputeMeter()
    algorithm, collector = made("sac", meter=meter, weight=0.01)
    train(metered(algorithm, meter), collector, start=0 + EPISODE, steps=30)
    ends = np.flatnonzero(collector.buffer.done)
    account = collector.buffer.info.compute
    # The first episode is random and free; the second runs 20 steps of 208 FLOPs at 0.01 a FLOP: 41.6.
    assert account.return_raw[ends[0]] == account.return_penalised[ends[0]]
    assert account.return_raw[ends[1]] - account.return_penalised[ends[1]] == pytest.approx(41.6)
    assert collector.buffer.rew[20:40].sum() == pytest.approx(account.return_penalised[ends[1]])


def test_budget_is_set_by_reset_options_as_workers_reach_no_wrapper() -> None:
    meter = ComputeMeter()
    algorithm, _ = made("sac")
    limited = ComputeLimit(pendulum(), 10**6, on_exhausted="truncate", meter=meter)
    collector = Collector(metered(algorithm, meter), DummyVectorEnv([lambda: limited]), VectorReplayBuffer(100, 1))
    with pytest.raises(AttributeError):
        collector.env.get_env_attr("max_flops")
    collector.reset(gym_reset_kwargs={"options": {"budget": 5 * 208}})
    stats = collector.collect(n_episode=2)  # the second reset has no options, and the same budget
    assert stats.lens.tolist() == [5, 5]


# ---- nothing is left behind -----------------------------------------------------------------------------------------


def test_unmeter_leaves_no_trace() -> None:
    for case in ("dqn", "sac"):
        algorithm, collector = made(case)
        kinds = type(algorithm), type(algorithm.policy)
        before = set(vars(algorithm)), set(vars(algorithm.policy))
        hooks = [len(module._forward_hooks) for module in algorithm.modules()]
        meter = ComputeMeter()
        assert unmeter(metered(algorithm, meter)) is algorithm
        assert (type(algorithm), type(algorithm.policy)) == kinds
        assert (set(vars(algorithm)), set(vars(algorithm.policy))) == before
        assert [len(module._forward_hooks) for module in algorithm.modules()] == hooks
        train(algorithm, collector)
        assert (meter.totals["act"], meter.totals["learn"]) == (0, 0)


def test_metering_twice_and_unmetering_nothing_raise() -> None:
    algorithm = metered(made("dqn")[0], ComputeMeter())
    with pytest.raises(MeterError, match="metered already"):
        metered(algorithm, ComputeMeter())
    with pytest.raises(MeterError, match="is not metered"):
        unmeter(made("dqn")[0])


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_copies_and_pickles_are_not_metered(twin_of: Callable[[Any], Any]) -> None:
    meter = ComputeMeter()
    algorithm = metered(made("dqn")[0], meter)
    twin = twin_of(algorithm)
    assert (type(twin), type(twin.policy)) == (DQN, DiscreteQLearningPolicy)
    assert twin.policy.compute_action(np.ones(4)) == algorithm.policy.compute_action(np.ones(4))
    assert meter.take().executed == 224
    assert twin.state_dict().keys() == algorithm.state_dict().keys()
    assert metered(twin, ComputeMeter("other")).meter.name == "other"


# ---- what cannot be metered -----------------------------------------------------------------------------------------


def test_what_is_no_algorithm_is_named() -> None:
    for wrong in (object(), made("dqn")[0].policy):
        with pytest.raises(ConfigError, match=r"expected an algorithm of Tianshou 2 .*watch what acts by hand"):
            metered(wrong)


def test_policy_of_several_agents_is_named() -> None:
    algorithm, _ = made("dqn")
    algorithm.policy = MultiAgentPolicy({"one": algorithm.policy})
    with pytest.raises(ConfigError, match=r"DQN with the policy MultiAgentPolicy: .*has an actor or a model"):
        metered(algorithm)


class Bare(torch.nn.Module):
    """A network with a product of its own, which no layer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.last = torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Linear(4, 2)

    def forward(self, observation: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        return self.last(torch.as_tensor(observation) @ self.scale), state


def test_products_outside_of_layers_are_refused_at_the_first_action() -> None:
    policy = DiscreteQLearningPolicy(model=Bare(), **spaces_of(cartpole()))
    algorithm = metered(DQN(policy=policy, optim=ADAM), ComputeMeter())
    # 2·(4·4 + 4·2) = 48, 2·4·2 = 16 of them in the layer.
    with pytest.raises(UncountableError, match=r"acting runs 48 FLOPs .*, 16 of them in the layers of model"):
        algorithm.policy.compute_action(np.ones(4, np.float32))


def test_policy_without_observation_space_says_what_to_do() -> None:
    algorithm, _ = made("dqn")
    algorithm.policy.observation_space = None
    with pytest.raises(ConfigError, match=r"policy\.observation_space = env\.observation_space"):
        as_sub_policy(algorithm)


# ---- as sub-policies, and as the master -----------------------------------------------------------------------------


def test_sub_policy_acts_as_its_policy_does() -> None:
    algorithm, _ = made("sac")
    sub_policy, observation = as_sub_policy(algorithm, "sac"), np.array([1.0, 0.0, 0.5], np.float32)
    assert (sub_policy.name, sub_policy.flops) == ("sac", 208)
    # Outside of training compute_action takes the mode, tanh(μ) in the bounds ±2.
    action = sub_policy(observation)
    assert action.item() == pytest.approx(algorithm.policy.compute_action(observation).item())
    assert action.shape == (1,)
    sampled = as_sub_policy(algorithm.policy, "sampled", deterministic=False)
    assert sampled(observation) != sampled(observation)
    assert not algorithm.policy.is_within_training_step
    assert algorithm.policy.deterministic_eval


def test_sub_policy_explores_when_not_deterministic() -> None:
    algorithm, _ = made("dqn")
    algorithm.policy.set_eps_training(1.0)
    greedy, random = as_sub_policy(algorithm, "greedy"), as_sub_policy(algorithm, "random", deterministic=False)
    assert len({int(greedy(np.ones(4))) for _ in range(20)}) == 1
    assert len({int(random(np.ones(4))) for _ in range(50)}) == 2


def test_unmodified_dqn_is_the_master_of_sub_policies() -> None:
    meter = ComputeMeter()
    seeded()
    small, large = sac(pendulum()), sac(pendulum(), hidden_sizes=(16, 16))
    # A sub-policy that is metered itself is charged once, as an option.
    policies = [as_sub_policy(metered(small, meter), "small"), as_sub_policy(large, "large")]

    def env_of() -> gym.Env:
        options = SubPolicyAction(
            pendulum(), [*policies, FunctionPolicy(lambda _: np.zeros(1), 1, "rest")], 3, meter=meter
        )
        return RecordComputeStatistics(options, meter)

    master = metered(dqn(env_of(), eps=0.5), meter)
    before, collector = weights(master), collector_of(master, env_of)
    train(master, collector, steps=45, start=0)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(master), strict=True))
    spent = meter.totals.by_name
    # O = 3, K = 3: 2·(3·8 + 8·8 + 8·3) = 224 a decision.
    assert spent["model"] == 45 * 224
    assert set(spent) == {"actor", "rest", "small", "large", "model"}
    assert spent["actor"] == 0
    # 7 decisions an episode: 6 of 3 steps and one of 2; the sub-policies run every primitive step.
    steps = 45 // 7 * EPISODE + 45 % 7 * 3
    assert spent["small"] // 208 + spent["large"] // policies[1].flops + spent["rest"] == steps
    assert not (spent["small"] % 208 or spent["large"] % policies[1].flops)


def test_random_collection_draws_from_the_innermost_action_space() -> None:
    # Workers reach env.unwrapped only: over SubPolicyAction, explore by epsilon instead.
    options = SubPolicyAction(pendulum(), [FunctionPolicy(lambda _: np.zeros(1), 1, "rest")], meter=ComputeMeter())
    collector = collector_of(dqn(options), lambda: options)
    collector.reset()
    with pytest.raises(SpaceError, match="is no index of a sub-policy"):
        collector.collect(n_step=1, random=True)
