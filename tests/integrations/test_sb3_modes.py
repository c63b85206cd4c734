"""Counting acts in evaluation mode and changes nothing; one run decides whether all of acting is watched."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy

from budget_wrappers.errors import BudgetError, UncountableError
from budget_wrappers.integrations.sb3 import as_sub_policy, flops_per_action, metered
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics


def tried(do: Any) -> Any:
    """Return what ``do`` returns, or the name of another library's error."""
    try:
        return do()
    except BudgetError:
        raise
    except (ValueError, RuntimeError, TypeError) as error:
        return type(error).__name__


class Normed(BaseFeaturesExtractor):
    """Batch statistics and dropout: 2·4·8 FLOPs of products."""

    def __init__(self, space: gym.spaces.Box) -> None:
        super().__init__(space, 8)
        self.net = nn.Sequential(nn.Linear(space.shape[0], 8), nn.BatchNorm1d(8), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Branching(BaseFeaturesExtractor):
    """Takes a dear branch where the cart is on the left."""

    def __init__(self, space: gym.spaces.Box) -> None:
        super().__init__(space, 4)
        self.a, self.b = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if float(x[0, 0]) > 0 else self.b(x)


def model_of(kind: type, extractor: Any = Normed, env: Any = None, policy: Any = "MlpPolicy", **settings: Any) -> Any:
    replay = {"buffer_size": 20} if kind in (SAC, DQN) else {"n_steps": 4} | ({"batch_size": 4} if kind is PPO else {})
    kwargs = {"net_arch": [8]} | ({} if extractor is None else {"features_extractor_class": extractor})
    name = "Pendulum-v1" if kind is SAC else "CartPole-v1"
    return kind(policy, env or name, policy_kwargs=kwargs, device="cpu", **replay, **settings)


FLOPS = {PPO: 2 * (4 * 8 + 8 * 8 + 8 * 2), DQN: 2 * (4 * 8 + 8 * 8 + 8 * 2), SAC: 2 * (3 * 8 + 8 * 8 + 8 + 8)}
kinds = pytest.mark.parametrize("kind", [PPO, DQN, SAC], ids=lambda kind: kind.__name__)


def state_of(model: Any) -> tuple[list[bool], dict[str, torch.Tensor]]:
    return [part.training for part in model.policy.modules()], {
        name: value.clone() for name, value in model.policy.state_dict().items()
    }


@kinds
def test_a_network_with_batch_statistics_is_counted_on_one_row_and_left_as_it_was(kind: type) -> None:
    model = model_of(kind)
    model.policy.train()
    next(iter(model.policy.children())).training = False  # a part of its own mode stays in it
    modes, state = state_of(model)
    assert tried(lambda: flops_per_action(model)) == FLOPS[kind]
    assert tried(lambda: flops_per_action(model, deterministic=False)) == FLOPS[kind]
    assert tried(lambda: as_sub_policy(model).flops) == FLOPS[kind]
    assert tried(lambda: metered(model, ComputeMeter())) is model
    after = state_of(model)
    assert after[0] == modes
    assert all(torch.equal(state[name], value) for name, value in after[1].items())


@kinds
def test_a_network_with_batch_statistics_is_charged_as_it_acts(kind: type) -> None:
    model, meter = model_of(kind), ComputeMeter()
    model.policy.train()
    assert tried(lambda: metered(model, meter)) is model
    model.predict(model.observation_space.sample(), deterministic=True)
    assert meter.take().executed == FLOPS[kind]


def accepted(make: Any) -> bool:
    try:
        metered(make(), ComputeMeter())
    except UncountableError:
        return False
    return True


def test_an_extractor_that_branches_is_accepted_always() -> None:
    assert [accepted(lambda: model_of(A2C, Branching)) for _ in range(10)] == [True] * 10


def test_each_branch_is_charged_as_it_runs() -> None:
    meter = ComputeMeter()
    model = metered_or_skip(lambda: model_of(A2C, Branching), meter)
    rest = 2 * (4 * 8 + 8 * 2)
    for place, flops in ((1.0, 2 * 4 * 4), (-1.0, 2 * (4 * 16 + 16 * 4))):
        model.predict(np.array([place, 0, 0, 0], np.float32), deterministic=True)
        assert meter.take().executed == flops + rest


def metered_or_skip(make: Any, meter: ComputeMeter) -> Any:
    """Return a metered model; it is tried again where one was refused by luck."""
    for _ in range(20):
        try:
            return metered(make(), meter)
        except UncountableError:
            continue
    raise AssertionError("refused 20 times")


class Turned(ActorCriticPolicy):
    """Turns what it observes while it collects, outside of every module that is watched: 2·4·4 FLOPs a step."""

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> Any:
        return super().forward(obs @ torch.eye(4), deterministic)


class TurnedSometimes(ActorCriticPolicy):
    """Does so where the pole leans far: no single example shows it."""

    leans = 1e3

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> Any:
        return super().forward(obs @ torch.eye(4) if float(obs[0, 2]) > self.leans else obs, deterministic)


class TurnedGreedily(DQNPolicy):
    """Does so where it acts, an off-policy one, in ``predict`` itself."""

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> Any:
        turned = torch.as_tensor(observation) @ torch.eye(4)
        return super().predict(turned.numpy(), *args, **kwargs)


@pytest.mark.parametrize("kind", [A2C, PPO], ids=["a2c", "ppo"])
def test_products_of_an_overridden_forward_are_refused(kind: type) -> None:
    assert [accepted(lambda: model_of(kind, None, policy=Turned)) for _ in range(3)] == [False] * 3


def test_products_of_an_overridden_predict_are_refused() -> None:
    assert not accepted(lambda: model_of(DQN, None, policy=TurnedGreedily))


def test_products_on_a_branch_that_no_example_took_are_refused_when_they_run() -> None:
    meter = ComputeMeter()
    env = RecordComputeStatistics(gym.make("CartPole-v1"), meter)
    model = metered(model_of(A2C, None, env, TurnedSometimes), meter)
    model.learn(8)
    model.policy.leans = -1e3
    with pytest.raises(UncountableError, match=r"TurnedSometimes runs \d+ FLOPs"):
        model.learn(8)


def test_a_policy_of_ones_own_that_adds_nothing_is_charged_as_its_base_is() -> None:
    class Same(ActorCriticPolicy):
        def forward(self, obs: torch.Tensor, deterministic: bool = False) -> Any:
            return super().forward(obs, deterministic)

    spent = []
    for policy in ("MlpPolicy", Same):
        meter = ComputeMeter()
        env = RecordComputeStatistics(gym.make("CartPole-v1"), meter)
        metered(model_of(A2C, None, env, policy, seed=0), meter).learn(8)
        spent.append(dict(meter.totals))
    assert spent[0] == spent[1]


def test_a_meter_of_all_operators_counts_all_of_acting_or_refuses() -> None:
    meter, model = ComputeMeter("m", "all"), model_of(PPO, None)
    try:
        metered(model, meter)
    except UncountableError as error:
        assert "A meter of convention 'matmul' counts products only" in str(error)
        return
    model.predict(np.zeros(4, np.float32), deterministic=True)
    assert meter.take().executed == flops_per_action(model, convention="all")


def test_a_model_of_jax_is_named() -> None:
    class Flax:
        """The policy of a model of sbx is not a torch module."""

    class Model:
        policy, observation_space = Flax(), gym.spaces.Box(-1, 1, (2,))

        def get_vec_normalize_env(self) -> None:
            return None

    Model.__module__ = "sbx.sac.sac"
    errors = []
    for use in (as_sub_policy, flops_per_action, metered):
        try:
            use(Model())
        except (BudgetError, AttributeError) as error:
            errors.append(f"{type(error).__name__}: {error}")
    assert [error.split(":")[0] for error in errors] == ["ConfigError"] * 3
    assert all("sbx act in JAX" in error and "FunctionPolicy" in error for error in errors)
