"""ExitPolicy: the exits of one network as sub-policies."""

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from budget_wrappers.core import BatchSubPolicy, SubPolicy
from budget_wrappers.deploy.numpy_exits import NumpyExits
from budget_wrappers.errors import ConfigError, NonFiniteError, SpaceError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy, SubPolicies

OBSERVATION = np.array([0.5, -1.0, 2.0])


def network_of(**changes: Any) -> EarlyExitNetwork:
    torch.manual_seed(0)
    return EarlyExitNetwork(**{"inputs": 3, "outputs": 2, "hidden": [4, 4], **changes})


def said(network: EarlyExitNetwork) -> np.ndarray:
    """Return what each exit says of the observation, ``(K, outputs)``."""
    x = torch.as_tensor(OBSERVATION[None]).to(next(network.parameters()))
    return network(x).output[:, 0].detach().numpy()


def test_exits_are_sub_policies_by_depth() -> None:
    exits = ExitPolicy(network_of(), np.tanh).exits
    assert all(isinstance(one, SubPolicy) for one in exits)
    assert [one.name for one in exits] == ["exit 1", "exit 2", "exit 3"]


def test_an_exit_costs_the_trunk_up_to_it_and_its_head_and_no_gate() -> None:
    # heads: 2·3·2 on the input, 2·4·2 on a layer; layers: 2·3·4 and 2·4·4
    exits = ExitPolicy(network_of(), np.tanh).exits
    assert [one.flops for one in exits] == [12, 24 + 16, 24 + 32 + 16]


@pytest.mark.parametrize("numpy_acts", [False, True])
def test_several_observations_are_one_batch(numpy_acts: bool) -> None:
    network = network_of()
    policy = ExitPolicy(network, np.tanh, at=NumpyExits(network).at if numpy_acts else None)
    observations = list(np.random.default_rng(0).normal(size=(5, 3)))
    for one in policy.exits:
        assert isinstance(one, BatchSubPolicy)
        np.testing.assert_allclose(one.batch(observations), [one(each) for each in observations], atol=1e-6)
    with pytest.raises(NonFiniteError, match="is not finite"):
        policy.exits[0].batch([np.zeros(3), np.full(3, np.nan)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_acts_by_what_the_exit_says_in_the_networks_own_precision(dtype: torch.dtype) -> None:
    network = network_of().to(dtype)
    for one, expected in zip(ExitPolicy(network, lambda output: output).exits, said(network), strict=True):
        action = one(OBSERVATION)
        assert (action.shape, action.dtype) == ((2,), expected.dtype)
        np.testing.assert_allclose(action, expected, atol=1e-6)


def test_an_engine_acts_as_torch_does_and_both_follow_the_weights() -> None:
    network = network_of()
    policies = [ExitPolicy(network, lambda output: output, at=at) for at in (None, NumpyExits(network).at)]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    network.exits[1].weight = torch.nn.Parameter(network.exits[1].weight.detach() + 1.0)
    for policy in policies:
        np.testing.assert_allclose([one(OBSERVATION) for one in policy.exits], said(network), atol=1e-5)


def test_an_observation_of_another_kind_is_made_an_array_first() -> None:
    policy = ExitPolicy(network_of(), lambda output: output, lambda observation: np.concatenate([*observation]))
    expected = said(policy.network)[0]
    np.testing.assert_allclose(policy.exits[0]((OBSERVATION[:1], OBSERVATION[1:])), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        (np.zeros(4), SpaceError, r"shape \(4,\): expected \(3,\);.*to_array="),
        (np.zeros((1, 3)), SpaceError, r"shape \(1, 3\): expected \(3,\);"),
        ({"position": np.zeros(3)}, SpaceError, r"no array of numbers.*to_array="),
        (np.array([0.0, np.nan, 0.0]), NonFiniteError, "is not finite"),
        (np.array([0.0, 1e39, 0.0]), NonFiniteError, "is not finite"),  # beyond float32
    ],
)
def test_what_is_no_observation_raises(observation: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ExitPolicy(network_of(), np.tanh).exits[0](observation)


def test_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected an EarlyExitNetwork.*agent\.exit_policy\(\)"):
        ExitPolicy(torch.nn.Linear(3, 2), np.tanh)


def test_a_deep_copy_is_the_policy_and_a_pickled_one_acts_alike() -> None:
    network = network_of()
    policy = ExitPolicy(network, np.tanh, at=NumpyExits(network).at)
    assert copy.deepcopy(policy) is policy
    other = pickle.loads(pickle.dumps(policy))
    for one, twin in zip(policy.exits, other.exits, strict=True):
        assert np.array_equal(one(OBSERVATION), twin(OBSERVATION))


def test_exits_are_ordinary_sub_policies() -> None:
    policy = ExitPolicy(network_of(), np.tanh)
    assert SubPolicies(policy.exits).names == ("exit 1", "exit 2", "exit 3")
    assert repr(policy) == "ExitPolicy(exit 1: 12, exit 2: 40, exit 3: 72)"
    assert repr(policy.exits[1]) == "OneExit('exit 2', flops=40)"


def test_images_need_a_function_that_makes_rows_of_them() -> None:
    space = gym.spaces.Box(0, 255, (1, 3), np.uint8)
    policy = ExitPolicy(network_of(), np.argmax, lambda observation: observation.reshape(-1) / 255.0)
    assert policy.exits[2](space.sample()) in (0, 1)
