"""Adapters that make anything that acts a sub-policy, and the ordered set of them."""

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from budget_wrappers.core import BatchSubPolicy, SubPolicy
from budget_wrappers.errors import ConfigError, CostError, SpaceError, UncountableError
from budget_wrappers.policies import (
    AgentPolicy,
    FunctionPolicy,
    ModulePolicy,
    SubPolicies,
    load_sub_policy,
    register_loader,
    register_sub_policy,
)
from budget_wrappers.wrappers import ComputeLimit, SubPolicyAction


def act(observation: Any) -> int:
    return 1


class TwoSteps:
    """An agent as in Stable-Baselines3."""

    def predict(self, observation: Any, deterministic: bool = False) -> tuple[Any, None]:
        return (np.array(3.0) if deterministic else np.array(4.0)), None


def policy(flops: int, name: str) -> FunctionPolicy:
    return FunctionPolicy(act, flops, name)


def test_sub_policies_are_ordered_by_cost() -> None:
    ordered = SubPolicies([policy(40, "b"), policy(10, "a"), policy(90, "c")])
    assert ordered.names == ("a", "b", "c")
    assert ordered.flops.tolist() == [10, 40, 90]
    assert ordered.costs.tolist() == [1.0, 4.0, 9.0]


def test_equal_costs_keep_the_order_given() -> None:
    assert SubPolicies([policy(10, "z"), policy(10, "a")]).names == ("z", "a")


def test_the_set_does_not_change() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SubPolicies([policy(10, "a")]).flops[0] = 5


def test_a_deep_copy_is_the_set_itself() -> None:
    ordered = SubPolicies([policy(10, "a")])
    assert copy.deepcopy({"sub_policies": ordered})["sub_policies"] is ordered


def test_a_set_can_be_pickled() -> None:
    restored = pickle.loads(pickle.dumps(SubPolicies([policy(10, "a")])))
    assert (restored.names, restored[0](None)) == (("a",), 1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "No sub-policy"),
        ([policy(1, "a"), policy(2, "a")], "names that differ"),
        ([policy(1, "selector")], "none of"),
        ([policy(1, "hold")], "none of"),
        ([torch.nn.Linear(2, 2)], r"Adapt it: ModulePolicy"),
        ([TwoSteps()], r"Adapt it: AgentPolicy"),
        ([act], r"Adapt it: FunctionPolicy"),
    ],
)
def test_what_is_no_set_of_sub_policies_raises(entries: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SubPolicies(entries)


@pytest.mark.parametrize("flops", [-1, float("nan"), 1.5])
def test_an_illegal_cost_names_the_sub_policy(flops: float) -> None:
    with pytest.raises(CostError, match="flops of sub-policy 'act'"):
        FunctionPolicy(act, flops)


def test_a_cost_made_illegal_later_is_found_by_the_set() -> None:
    broken = policy(1, "broken")
    broken.flops = -3
    with pytest.raises(CostError, match=r"'broken'.* is -3"):
        SubPolicies([broken])


def test_a_function_takes_its_own_name() -> None:
    adapted = FunctionPolicy(act, 5)
    assert isinstance(adapted, SubPolicy)
    assert (adapted.name, adapted.flops, adapted(None)) == ("act", 5, 1)


def test_a_module_is_counted_and_acts_on_one_observation() -> None:
    net = torch.nn.Linear(3, 2)
    adapted = ModulePolicy(net, lambda module, obs: module(obs), example=np.zeros(3, np.float32), name="net")
    observation = np.array([1.0, 2.0, 3.0], np.float32)
    assert adapted.flops == 2 * 3 * 2  # one multiply-accumulate is 2 FLOPs
    expected = net(torch.from_numpy(observation)).detach().numpy()
    np.testing.assert_allclose(adapted(observation), expected, rtol=1e-6)


def test_a_modules_discrete_action_is_a_number() -> None:
    net = torch.nn.Linear(3, 2)
    adapted = ModulePolicy(net, lambda module, obs: module(obs).argmax(-1), example=np.zeros(3, np.float32))
    assert np.ndim(adapted(np.zeros(3, np.float32))) == 0


def test_a_module_keeps_no_graph() -> None:
    net = torch.nn.Linear(3, 2)
    seen: list[bool] = []

    def watching(module: torch.nn.Module, obs: torch.Tensor) -> torch.Tensor:
        output = module(obs)
        seen.append(output.requires_grad)
        return output.detach()

    ModulePolicy(net, watching, example=np.zeros(3, np.float32))(np.zeros(3, np.float32))
    assert seen[-1] is False


class Gated(torch.nn.Module):
    """Takes a dear branch for every observation but zero."""

    def __init__(self) -> None:
        super().__init__()
        self.cheap, self.dear = torch.nn.Linear(4, 2), torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cheap(x) if float(x.abs().sum()) == 0 else self.dear(x)


CHEAP_BRANCH, DEAR_BRANCH = 2 * 4 * 2, 2 * (4 * 8 + 8 * 2)


def gated(flops: int | None = None) -> ModulePolicy:
    return ModulePolicy(Gated(), lambda net, obs: net(obs).argmax(-1), np.zeros(4), "gated", flops=flops)


def test_a_module_that_runs_more_than_it_declares_raises() -> None:
    adapted = gated()
    assert adapted.flops == CHEAP_BRANCH
    adapted(np.zeros(4))
    for _ in range(2):  # and leaves nothing behind that would let the next one pass
        with pytest.raises(CostError, match=rf"'gated' ran {DEAR_BRANCH} FLOPs .* declares {CHEAP_BRANCH}.*flops="):
            adapted(np.ones(4))
    adapted(np.zeros(4))


def test_a_module_may_declare_its_dearest_branch() -> None:
    adapted = gated(flops=DEAR_BRANCH)
    assert adapted.flops == DEAR_BRANCH
    assert np.ndim(adapted(np.ones(4))) == np.ndim(adapted(np.zeros(4))) == 0


def test_a_hard_limit_is_not_broken_by_a_gated_module() -> None:
    env = SubPolicyAction(gym.make("CartPole-v1"), [gated()], hold=1, meter="tests.gated")
    env = ComputeLimit(env, 2000, "truncate", meter="tests.gated")
    env.reset(seed=0)
    with pytest.raises(CostError, match="'gated' ran"):
        env.step(0)


@pytest.mark.parametrize("flops", [CHEAP_BRANCH - 1, -1, float("nan")])
def test_a_declared_cost_below_the_examples_is_refused(flops: float) -> None:
    with pytest.raises(CostError, match="'gated'"):
        gated(flops=flops)


def test_an_exception_in_a_counted_module_leaves_no_counter() -> None:
    adapted = gated(flops=DEAR_BRANCH)
    with pytest.raises(SpaceError, match="shapes"):
        adapted(np.ones(3))
    assert not _get_current_dispatch_mode_stack()


def test_a_static_module_is_not_counted_at_each_call() -> None:
    seen: list[int] = []

    def watching(module: torch.nn.Module, obs: torch.Tensor) -> torch.Tensor:
        seen.append(len(_get_current_dispatch_mode_stack()))
        return module(obs)

    ModulePolicy(torch.nn.Linear(3, 2), watching, example=np.zeros(3))(np.zeros(3))
    assert seen == [1, 0]  # the example, and the call


def test_a_static_module_acts_on_several_observations_at_once() -> None:
    torch.manual_seed(0)
    adapted = ModulePolicy(torch.nn.Linear(3, 2), lambda net, obs: net(obs), example=np.zeros(3))
    observations = list(np.random.default_rng(0).normal(size=(5, 3)))
    assert isinstance(adapted, BatchSubPolicy)
    assert adapted.batched
    np.testing.assert_allclose(adapted.batch(observations), [adapted(one) for one in observations], atol=1e-6)
    assert not isinstance(policy(1, "a"), BatchSubPolicy)


def test_a_module_that_is_counted_call_by_call_takes_no_batch() -> None:
    adapted = gated(flops=DEAR_BRANCH)
    assert not adapted.batched
    with pytest.raises(UncountableError, match="'gated' got 2 observations"):
        adapted.batch([np.zeros(4), np.ones(4)])


def test_an_agent_is_handed_one_batch_of_whatever_kind() -> None:
    class Agent:
        def predict(self, observation: Any, deterministic: bool) -> tuple[Any, None]:
            return observation, None

    assert not AgentPolicy(Agent(), flops=7).batched
    agent = AgentPolicy(Agent(), flops=7, batched=True)
    observations = [{"a": np.full(2, n), "b": (n, np.ones(1))} for n in range(3)]
    seen = agent.batch(observations)
    np.testing.assert_array_equal(seen["a"], [[0, 0], [1, 1], [2, 2]])
    assert (seen["b"][0].tolist(), seen["b"][1].shape) == ([0, 1, 2], (3, 1))


def test_an_agent_predicts_as_asked() -> None:
    assert AgentPolicy(TwoSteps(), flops=7)(None) == 3.0
    assert AgentPolicy(TwoSteps(), flops=7, deterministic=False)(None) == 4.0


def test_what_cannot_predict_is_no_agent() -> None:
    with pytest.raises(ConfigError, match="has no predict"):
        AgentPolicy(act, flops=7)


def test_a_registered_name_is_a_sub_policy() -> None:
    register_sub_policy("tests-small", lambda: policy(3, "small"))
    assert SubPolicies(["tests-small", policy(9, "large")]).names == ("small", "large")


def test_a_scheme_is_loaded_from_the_rest_of_the_reference() -> None:
    register_loader("tests-file", lambda reference: policy(len(reference), reference))
    assert load_sub_policy("tests-file:runs/a:b").name == "runs/a:b"


def test_an_unknown_name_hints_at_the_nearest() -> None:
    register_sub_policy("tests-large", lambda: policy(3, "large"))
    with pytest.raises(ConfigError, match=r"'tests-lagre' is unknown.*Did you mean 'tests-large'"):
        load_sub_policy("tests-lagre")


def test_a_name_belongs_to_whoever_registered_it() -> None:
    register_sub_policy("tests-mine", act)
    register_sub_policy("tests-mine", act)  # the same again is no conflict
    with pytest.raises(ConfigError, match="registered already"):
        register_sub_policy("tests-mine", lambda: policy(1, "other"))


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_name_without_a_colon_is_expected(name: str) -> None:
    with pytest.raises(ConfigError, match="without a colon"):
        register_sub_policy(name, act)
