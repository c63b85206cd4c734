"""Each fault that was shown with a script, as a law: a case of every kind, by the letter of its kind.

Other faces of each kind are tested beside the code that they concern. Values are derived beside them; "or" stands where
an error or a warning that names the remedy is as right as the number.
"""

import itertools
import pickle
import threading
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from budget_wrappers.errors import BudgetError, ConfigError, MeterError, SpaceError
from budget_wrappers.metering import ComputeMeter, count_flops
from budget_wrappers.policies import AgentPolicy, FunctionPolicy, ModulePolicy
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    RecordComputeStatistics,
    SubPolicyAction,
    vector,
)
from tests.gymnasium_versions import sync
from tests.policies.memories import Counting, cartpole, rule


def perceptron(*widths: int) -> nn.Sequential:
    parts = [part for i, o in itertools.pairwise(widths) for part in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def observed(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


def recorded(meter: ComputeMeter, steps: int | None = None) -> gym.Env:
    env = RecordComputeStatistics(gym.make("CartPole-v1", max_episode_steps=steps), meter)
    env.reset(seed=0)
    return env


def tried(do: Any) -> Any:
    """Return what ``do`` returns, or the error that it raises."""
    try:
        return do()
    except Exception as error:  # noqa: BLE001 - another library's error is the fault that is looked for
        return error


@torch.no_grad()
def spent(meter: ComputeMeter, act: Any) -> Any:
    """Return the FLOPs that ``act`` is charged, or the error that it raises."""
    return tried(lambda: (act(), meter.take().executed)[1])


def names_rows(told: Any) -> bool:
    return isinstance(told, BudgetError) and "rows=" in str(told)


# ---- who pays -------------------------------------------------------------------------------------------------------


def test_a1_each_of_several_threads_is_charged_all_that_its_policy_runs() -> None:
    shares, together = [], threading.Barrier(8)

    def run() -> None:
        meter, net = ComputeMeter(), perceptron(4, 64, 2)  # 2·(4·64 + 64·2) = 768
        meter.watch(net)
        env, total = recorded(meter), 0.0
        obs = np.zeros(4, np.float32)
        together.wait()
        for _ in range(60):
            with torch.no_grad():
                action = int(net(torch.as_tensor(obs)[None]).argmax())
            obs, _, terminated, truncated, info = env.step(action)
            total += info["cost"]
            if terminated or truncated:
                obs, _ = env.reset()
        shares.append(total / (60 * 768))

    for _ in range(3):
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert shares == [1.0] * 24


def test_c1_a_batch_of_candidates_for_one_action_is_paid_by_it_or_names_rows() -> None:
    meter, net = ComputeMeter(), nn.Linear(5, 1)
    meter.watch(net)
    env = recorded(meter)
    with torch.no_grad():
        net(observed(64, 5))
    told = tried(lambda: float(env.step(0)[-1]["cost"]))
    assert names_rows(told) or told == 64 * 2 * 5


def test_c2_the_nodes_of_one_graph_are_one_observation_or_the_error_names_rows() -> None:
    meter, net = ComputeMeter(), nn.Linear(3, 8)
    meter.watch(net)
    env = recorded(meter)
    with torch.no_grad():
        net(observed(7, 3)).mean(0)
    told = tried(lambda: float(env.step(0)[-1]["cost"]))
    assert names_rows(told) or told == 7 * 2 * 3 * 8


@torch.no_grad()
def test_c3_an_unbatched_observation_of_indices_is_one_row() -> None:
    meter, net = ComputeMeter(), nn.Sequential(nn.Embedding(10, 4), nn.Flatten(0), nn.Linear(12, 2))
    meter.watch(net)
    net(torch.tensor([1, 2, 3]))
    meter.take()
    assert meter.last_rows == 1


def test_e1_a_module_that_acts_by_another_method_is_charged_or_spoken_of() -> None:
    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor = nn.Linear(4, 2)

        def act(self, x: torch.Tensor) -> int:
            return int(self.actor(x).argmax())

    agent, meter = Agent(), ComputeMeter()
    meter.watch(agent)
    env = recorded(meter, 3)
    with warnings.catch_warnings(record=True) as told, torch.no_grad():
        warnings.simplefilter("always")
        infos = tried(lambda: [env.step(agent.act(observed(1, 4)))[-1] for _ in range(3)])
    assert told or isinstance(infos, MeterError) or float(infos[-1]["compute"]["flops"]) == 3 * 2 * 4 * 2


def test_g1_a_step_after_an_end_begins_an_account() -> None:
    meter = ComputeMeter()
    env = gym.wrappers.Autoreset(gym.make("Pendulum-v1", max_episode_steps=3))
    env = RecordComputeStatistics(env, meter)
    env.reset(seed=0)
    ends = []
    for _ in range(8):
        meter.add(10)
        info = env.step(np.zeros(1, np.float32))[-1]
        ends += [float(info["compute"]["flops"])] if "compute" in info else []
    assert ends[1:] in ([30.0], [40.0])  # the action of the step that only resets is paid for or not


def test_q1_recorders_on_one_meter_are_charged_their_own_rows_or_refused() -> None:
    meter, net = ComputeMeter(), nn.Linear(4, 2)
    meter.watch(net)
    envs = gym.vector.SyncVectorEnv([lambda: RecordComputeStatistics(gym.make("CartPole-v1"), meter)] * 3)
    obs, _ = envs.reset(seed=0)
    with torch.no_grad():
        for row in obs:
            net(torch.as_tensor(row)[None])
    told = tried(lambda: envs.step(np.zeros(3, int))[-1]["cost"].tolist())
    assert isinstance(told, MeterError) or told == [16.0] * 3


def test_w1_rows_that_branch_apart_are_charged_apart_or_the_error_names_by_row() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.deep, self.out = nn.Linear(4, 8), perceptron(8, 32, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden, stay = torch.relu(self.a(x)).clone(), x[:, 0] <= 0
            hidden[stay] = self.deep(hidden[stay])
            return self.out(hidden)

    meter, net = ComputeMeter(), Early()
    meter.watch(net)
    envs = vector.RecordComputeStatistics(sync([lambda: gym.make("CartPole-v1")] * 2, "NextStep"), meter)
    envs.reset(seed=0)
    with torch.no_grad():
        tried(lambda: net(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])))
    told = tried(lambda: envs.step(np.zeros(2, int))[-1]["cost"].tolist())
    shallow = 2 * (4 * 8 + 8 * 2)
    assert (isinstance(told, BudgetError) and "by_row" in str(told)) or told == [shallow, shallow + 2 * 2 * 8 * 32]


def test_r1_sub_policies_of_another_convention_are_counted_in_the_meters_or_refused() -> None:
    meter = ComputeMeter("m", "all")
    part = ModulePolicy(perceptron(4, 8, 2), lambda net, obs: net(obs).argmax(-1), np.zeros(4, np.float32))

    def cost() -> float:
        env = SubPolicyAction(gym.make("CartPole-v1"), [rule(0), part], hold=1, meter=meter)
        env = RecordComputeStatistics(env, meter)
        env.reset(seed=0)
        return float(env.step(1)[-1]["cost"])

    told = tried(cost)
    assert isinstance(told, ConfigError) or told == 114.0


# ---- counts follow the network --------------------------------------------------------------------------------------


def test_b1_a_watched_module_inside_a_compiled_function_is_charged() -> None:
    net, meter = perceptron(8, 16, 2), ComputeMeter()
    meter.watch(net)
    act = torch.compile(lambda x: torch.tanh(net(x)), backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert spent(meter, lambda: act(observed(1, 8))) == 2 * (8 * 16 + 16 * 2)


def test_d1_layers_that_were_replaced_are_counted_anew() -> None:
    net, meter = perceptron(8, 16, 2), ComputeMeter()
    meter.watch(net)
    spent(meter, lambda: net(observed(1, 8)))
    net[0], net[2] = nn.Linear(8, 4), nn.Linear(4, 2)
    assert spent(meter, lambda: net(observed(1, 8))) == 2 * (8 * 4 + 4 * 2)


def test_d2_a_hook_that_multiplies_is_counted() -> None:
    net, meter = perceptron(8, 16, 2), ComputeMeter()
    meter.watch(net)
    spent(meter, lambda: net(observed(1, 8)))
    net[2].register_forward_hook(lambda module, given, output: output @ torch.ones(2, 2))
    assert spent(meter, lambda: net(observed(1, 8))) == 2 * (8 * 16 + 16 * 2) + 2 * 2 * 2


def test_f1_a_gaussian_of_full_covariance_is_counted() -> None:
    def act(x: torch.Tensor) -> torch.Tensor:
        distribution = torch.distributions.MultivariateNormal(x @ torch.ones(4, 2), torch.eye(2))
        return distribution.log_prob(distribution.sample())

    counted = tried(lambda: count_flops(act, observed(1, 4)))
    assert isinstance(counted, int)
    assert counted >= 2 * 4 * 2


def test_t1_a_watched_module_is_pickled_without_this_library() -> None:
    net = nn.Linear(4, 2)
    ComputeMeter().watch(net)
    assert b"budget_wrappers" not in pickle.dumps(net)


# ---- limits, memories and masks -------------------------------------------------------------------------------------


def test_h1_the_shorter_of_two_time_limits_is_the_horizon() -> None:
    still, meter = np.zeros(1, np.float32), ComputeMeter()
    env = gym.wrappers.TimeLimit(gym.make("Pendulum-v1", max_episode_steps=20), 1000)
    env = SubPolicyAction(env, [rule(still, 1), rule(still, 10)], hold=1, meter=meter)
    env = RecordComputeStatistics(ComputeLimit(env, 110, meter=meter), meter)
    env.reset(seed=0)
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(1)
        over = terminated or truncated
    assert float(info["compute"]["flops"]) == 10 * 10 + 10 * 1


def test_i1_what_predict_hands_back_is_given_to_it_again() -> None:
    spy = cartpole(9)
    env = SubPolicyAction(spy, [rule(1), AgentPolicy(Counting(), 5, "memory")], hold=1, meter=ComputeMeter())
    env.reset(seed=0)
    for _ in range(4):
        env.step(1)
    assert spy.taken == [[0, 1, 0, 1]]


def test_m1_a_mask_is_one_of_choices() -> None:
    class Masked(gym.Wrapper):
        def action_masks(self) -> np.ndarray:
            return np.ones(2, bool)

    rules = [FunctionPolicy(lambda obs: 0, flops, str(flops)) for flops in (1, 5, 9)]
    env = SubPolicyAction(Masked(gym.make("CartPole-v1")), rules, hold=1, meter=ComputeMeter())
    env.reset(seed=0)
    assert env.get_wrapper_attr("action_masks")().shape == (3,)


# ---- observations and arrays ----------------------------------------------------------------------------------------


def test_n1_a_module_acts_on_a_dictionary() -> None:
    goals = {"observation": np.zeros(3, np.float32), "desired_goal": np.zeros(1, np.float32)}

    def act(net: nn.Module, obs: Any) -> torch.Tensor:
        return net(torch.cat(list(obs.values()), -1)).argmax(-1)

    assert tried(lambda: ModulePolicy(nn.Linear(4, 2), act, example=goals).flops) == 2 * 4 * 2


def test_n2_a_module_acts_on_an_index() -> None:
    net = nn.Sequential(nn.Embedding(16, 4), nn.Linear(4, 2))
    policy = tried(lambda: ModulePolicy(net, lambda module, obs: module(obs).argmax(-1), example=np.int64(3)))
    assert tried(lambda: int(policy(np.int64(2)))) in (0, 1)


def test_o1_a_vector_wrapper_understands_tensors() -> None:
    pytest.importorskip("array_api_compat")
    from gymnasium.wrappers.vector import NumpyToTorch

    meter = ComputeMeter()
    envs = NumpyToTorch(sync([lambda: gym.make("CartPole-v1", max_episode_steps=3)] * 2, "NextStep"))
    envs = vector.RecordComputeStatistics(envs, meter)
    envs.reset(seed=0)

    def accounts() -> list[float]:
        for _ in range(3):
            meter.add(20, rows=2)
            infos = envs.step(torch.zeros(2, dtype=torch.long))[-1]
        return np.asarray(infos["compute"]["flops"]).tolist()

    assert tried(accounts) == [30.0, 30.0]


def test_u1_an_observation_with_words_is_refused_by_name() -> None:
    pytest.importorskip("minigrid")
    told = tried(lambda: BudgetAwareObservation(gym.make("MiniGrid-Empty-5x5-v0"), what="budget"))
    assert isinstance(told, SpaceError)
