"""Observations of any tree, type and device go into a module, and actions come back as numpy; else an error of ours."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from budget_wrappers.errors import BudgetError, SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import AgentPolicy, ExitPolicy, ModulePolicy
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import Retrofit, RetrofitConfig, TrainedActor
from budget_wrappers.wrappers import vector
from tests.gymnasium_versions import sync

GOALS = {"observation": np.zeros(3, np.float32), "desired_goal": np.zeros(1, np.float32)}


def outcome(make: Any) -> Any:
    """Return what ``make`` returns, or the name of another library's error."""
    try:
        return make()
    except BudgetError:
        raise
    except (TypeError, RuntimeError, ValueError, LookupError) as error:
        return type(error).__name__


def greedy(module: nn.Module, batch: Any) -> torch.Tensor:
    return module(batch).argmax(-1)


def together(module: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return greedy(module, torch.cat(list(batch.values()), -1))


class Embedded(nn.Module):
    """An index and a number: 2·(3 + 1)·2 = 16 FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(5, 3), nn.Linear(4, 2)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layer(torch.cat([self.table(batch["place"]), batch["image"].flatten(1)], -1))


def test_a_dictionary_becomes_a_dictionary_of_tensors() -> None:
    assert outcome(lambda: ModulePolicy(nn.Linear(4, 2), together, GOALS).flops) == 2 * 4 * 2
    assert outcome(lambda: int(ModulePolicy(nn.Linear(4, 2), together, GOALS)(GOALS))) in (0, 1)


def test_a_tuple_becomes_a_tuple_of_tensors() -> None:
    pair = (np.zeros(3, np.float32), (np.zeros(1, np.float32),))

    def act(module: nn.Module, batch: Any) -> torch.Tensor:
        return greedy(module, torch.cat([batch[0], batch[1][0]], -1))

    assert outcome(lambda: int(ModulePolicy(nn.Linear(4, 2), act, pair)(pair))) in (0, 1)


@pytest.mark.parametrize("index", [3, np.int64(3), np.array(3, np.int32)])
def test_an_index_stays_one_for_an_embedding(index: Any) -> None:
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    with torch.no_grad():
        expected = int(net(torch.tensor([3])).argmax())
    assert outcome(lambda: int(ModulePolicy(net, greedy, index)(index))) == expected


def test_an_index_beside_an_image_stays_one_and_the_image_becomes_floats() -> None:
    seen = {"place": np.int64(2), "image": np.full((1, 1), 200, np.uint8)}
    assert outcome(lambda: ModulePolicy(Embedded(), greedy, seen).flops) == 16


def test_whole_numbers_go_into_a_linear_layer_as_floats() -> None:
    net = nn.Linear(2, 2)
    policy = ModulePolicy(net, lambda module, batch: module(batch), np.array([1, 2]))
    expected = net(torch.tensor([1.0, 2.0])).detach().numpy()
    np.testing.assert_allclose(policy(np.array([1, 2])), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_float_type_act(dtype: torch.dtype) -> None:
    net = nn.Linear(3, 2).to(dtype)
    policy = outcome(lambda: ModulePolicy(net, lambda module, batch: module(batch), np.ones(3)))
    action = outcome(lambda: policy(np.ones(3)))
    np.testing.assert_allclose(np.asarray(action, np.float64), net(torch.ones(3, dtype=dtype)).detach().double())


def test_an_exit_of_bfloat16_acts() -> None:
    network = EarlyExitNetwork(inputs=4, outputs=2, hidden=[8]).to(torch.bfloat16)
    assert outcome(lambda: int(ExitPolicy(network, act=np.argmax).action_at(np.ones(4), 0))) in (0, 1)


def test_a_module_whose_first_parameter_is_whole_gets_floats() -> None:
    net = nn.Linear(3, 2)
    shift = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)
    net._parameters = {"_shift": shift, **net._parameters}
    assert outcome(lambda: int(ModulePolicy(net, greedy, np.ones(3))(np.ones(3)))) in (0, 1)


def test_rows_of_dictionaries_are_one_batch() -> None:
    class Goals(gym.Env):
        observation_space = gym.spaces.Dict({key: gym.spaces.Box(-1, 1, x.shape) for key, x in GOALS.items()})
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return {key: np.ones_like(x) for key, x in GOALS.items()}, {}

        def step(self, action: Any) -> Any:
            return self.reset()[0], 0.0, False, False, {}

    policy = outcome(lambda: ModulePolicy(nn.Linear(4, 2), together, GOALS, "net"))
    envs = sync([Goals] * 2, "NextStep")
    envs = outcome(lambda: vector.SubPolicyAction(envs, [policy], meter=ComputeMeter()))
    assert envs != "ConfigError"
    envs.reset()
    assert envs.step([0, 0])[-1]["option"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("example", "message"),
    [(np.zeros(5, np.float32), r"'net' cannot act on its example.*\(5,\)"), ({"text": "go"}, r"observation\['text'\]")],
)
def test_an_example_that_does_not_fit_names_the_policy_and_what_it_is(example: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        ModulePolicy(nn.Linear(4, 2), greedy, example, "net")


@pytest.mark.parametrize("given", [GOALS, np.zeros(5, np.float32), "go"])
def test_an_observation_that_is_not_like_the_example_is_named(given: Any) -> None:
    policy = ModulePolicy(nn.Linear(4, 2), greedy, np.zeros(4, np.float32), "net")
    with pytest.raises(SpaceError):
        policy(given)


def test_an_agent_that_returns_its_action_alone_is_refused() -> None:
    class Bare:
        def predict(self, observation: Any, deterministic: bool = True) -> Any:
            return np.array([0.5, 0.7])  # the first number was taken for the action

    with pytest.raises(SpaceError, match=r"expected \(action, state\)"):
        AgentPolicy(Bare(), 1)(np.zeros(2))


def test_retrofitting_names_observations_that_its_actor_does_not_take() -> None:
    layers = [nn.Linear(4, 8), nn.Linear(8, 2)]
    actor = TrainedActor(layers, "relu", ActionMap.of(gym.spaces.Discrete(2)))

    class Words(gym.ObservationWrapper):
        def observation(self, observation: Any) -> Any:
            return {"obs": observation}

    with pytest.raises(SpaceError, match="to_array="):
        Retrofit(actor, RetrofitConfig(steps=2, rounds=1, updates=1)).imitate(Words(gym.make("CartPole-v1")))
