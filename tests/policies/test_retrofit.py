"""Exits for a trained actor: it is not changed, the last exit is it, the others copy it, gates keep the budget."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.retrofit import Retrofit, RetrofitConfig, TrainedActor, perceptron_of
from tests.wrappers.environments import OneArray

SMALL = RetrofitConfig((0, 1, 2), steps=150, rounds=2, updates=150, batch_size=64, learning_rate=1e-2)


class Walk(gym.Env):
    """Observations are random; the action leads nowhere. Episodes of 10 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.left = 10
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action.shape == (2,)
        self.left -= 1
        return self._observation(), 0.0, False, self.left == 0, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.standard_normal(3).astype(np.float32)


def module(outputs: int = 2, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, outputs))


def actor(worth: Any = None) -> TrainedActor:
    return TrainedActor.of_module(module(), Walk.action_space, "squash", worth)


def test_the_actor_is_not_changed_and_the_last_exit_is_it() -> None:
    net = module(activation=nn.Tanh)
    before, x = copy.deepcopy(net.state_dict()), torch.randn(20, 3)
    retrofit = Retrofit(TrainedActor.of_module(net, Walk.action_space, "clip"), SMALL)
    retrofit.imitate(Walk())
    retrofit.teach_gates(0.5)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    torch.testing.assert_close(retrofit.network.last(x), net(x), rtol=0, atol=0)


def test_exits_come_to_do_what_the_actor_does() -> None:
    retrofit, x = Retrofit(actor(), SMALL), torch.randn(500, 3)
    said = lambda: torch.tanh(retrofit.network(x).output)  # noqa: E731
    before = (said()[:-1] - said()[-1]).square().mean((1, 2))
    first, last = retrofit.imitate(Walk())
    after = (said()[:-1] - said()[-1]).square().mean((1, 2))
    assert (after < 0.3 * before).all()
    assert after[1] < after[0]  # more is left of the actor after one layer than before any
    assert len(retrofit.observations) == 300
    assert max(first, last) < 0.1


def test_exits_are_after_every_layer_and_on_the_observation_where_there_is_but_one_layer() -> None:
    assert Retrofit(actor()).network.depths == (1, 2)
    shallow = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    assert Retrofit(TrainedActor.of_module(shallow, Walk.action_space, "clip")).network.depths == (0, 1)


def test_states_of_an_environment_with_one_array_for_all_are_told_apart() -> None:
    seen = Retrofit(actor(), SMALL).visited(OneArray(Walk()), mixed=False)
    torch.testing.assert_close(seen, Retrofit(actor(), SMALL).visited(Walk(), mixed=False), rtol=0, atol=0)
    assert len(torch.unique(seen, dim=0)) == SMALL.steps


def test_gates_meet_each_budget_they_are_taught_and_heads_stay() -> None:
    # Gates are logistic: it takes steps to say 0 or 1.
    retrofit = Retrofit(
        actor(), RetrofitConfig((0, 1, 2), steps=150, rounds=2, updates=600, batch_size=64, learning_rate=3e-2)
    )
    retrofit.imitate(Walk())
    x = retrofit.observations
    heads = retrofit.network(x).output.detach().clone()
    costs = np.array(retrofit.network.flops, dtype=float)
    costs = (costs - costs[0]) / (costs[-1] - costs[0])
    rng = np.random.default_rng(0)
    for budget in (0.0, 0.3, 0.8):
        retrofit.teach_gates(budget)
        draws = torch.tensor(rng.random((20 * len(x), 2)), dtype=torch.float32)
        _, taken = retrofit.network.leave(x.repeat(20, 1), draws)
        assert costs[taken.numpy()].mean() == pytest.approx(budget, abs=0.06)
    torch.testing.assert_close(retrofit.network(x).output, heads, rtol=0, atol=0)


def test_a_critic_decides_where_exits_are_worth_their_cost() -> None:
    # The critic knows a difference between exits only where the first observed number is positive.
    def worth(observation: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        return -1e3 * (observation[:, 0] > 0) * said.square().sum(1)

    config = RetrofitConfig((0, 1, 2), steps=300, rounds=1, updates=600, batch_size=64, learning_rate=2e-2)
    retrofit = Retrofit(actor(worth), config)
    retrofit.imitate(Walk())
    with torch.no_grad():  # the first exit says what the critic hates most
        retrofit.network.exits[0].bias[:2] = 10.0
    retrofit.teach_gates(0.3)
    opens = torch.sigmoid(retrofit.network(retrofit.observations).logits[:, 0])
    matters = retrofit.observations[:, 0] > 0
    assert opens[~matters].mean() > 0.8
    assert opens[matters].mean() < 0.5


def test_values_of_indices_are_what_the_last_layer_says_of_each_choice() -> None:
    net = module(outputs=3)
    retrofit = Retrofit(TrainedActor.of_module(net, spaces.Discrete(3)), SMALL)
    output = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]], [[0.2, 0.9, 0.5]]])  # K = 3 exits, one state
    assert retrofit.values(torch.zeros(1, 3), output)[:, 0].tolist() == pytest.approx([0.2, 0.5, 0.9])


def test_one_seed_is_one_network() -> None:
    states = []
    for _ in range(2):
        retrofit = Retrofit(actor(), SMALL)
        retrofit.imitate(Walk())
        retrofit.teach_gates(0.4)
        states.append(retrofit.network.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_module_s_layers_are_found() -> None:
    layers, activation, squashed = perceptron_of(nn.Sequential(nn.Flatten(), *module(), nn.Tanh()))
    assert (len(layers), activation, squashed) == (3, "relu", True)
    assert TrainedActor.of_module(nn.Sequential(*module(), nn.Tanh()), Walk.action_space).action_map.meaning == "squash"


@pytest.mark.parametrize(
    "bad",
    [
        nn.Sequential(nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Linear(4, 2)),
    ],
)
def test_what_is_no_perceptron_is_refused(bad: nn.Sequential) -> None:
    with pytest.raises(ConfigError, match="expected Linear, ReLU or Tanh"):
        TrainedActor.of_module(bad, spaces.Discrete(2))


def test_a_module_s_critic_and_its_input_can_be_given() -> None:
    worth = lambda observation, said: said.sum(1)  # noqa: E731
    made = TrainedActor.of_module(module(), Walk.action_space, "clip", worth=worth, to_array=np.negative)
    assert made.worth is worth
    assert Retrofit(made, SMALL).visited(Walk(), mixed=False)[0].tolist() == [
        -x for x in Retrofit(actor(), SMALL).visited(Walk(), mixed=False)[0].tolist()
    ]


def test_a_module_that_is_no_sequence_is_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    with pytest.raises(ConfigError, match=r"a Own: expected nn\.Sequential"):
        TrainedActor.of_module(Own(), Walk.action_space, "clip")


def test_bad_settings_are_refused_early() -> None:
    with pytest.raises(ConfigError, match="actor's own output"):
        Retrofit(actor(), RetrofitConfig(exit_after=(0, 1)))
    with pytest.raises(ConfigError, match="one before it"):
        Retrofit(actor(), RetrofitConfig(exit_after=(2,)))
    with pytest.raises(ConfigError, match="imitate"):
        Retrofit(actor(), SMALL).teach_gates(0.5)
    with pytest.raises(ConfigError, match="updates=0"):
        RetrofitConfig(updates=0)
    with pytest.raises(ConfigError, match="learning_rate"):
        RetrofitConfig(learning_rate=0.0)
    with pytest.raises(ConfigError, match="program"):
        RetrofitConfig(program="greedy")
    with pytest.raises(ConfigError, match="one hidden layer"):
        TrainedActor([nn.Linear(3, 2)], "relu", ActionMap("argmax"))
    with pytest.raises(ConfigError, match="activation"):
        TrainedActor([nn.Linear(3, 4), nn.Linear(4, 2)], "gelu", ActionMap("argmax"))
    retrofit = Retrofit(actor(), SMALL)
    retrofit.imitate(Walk())
    with pytest.raises(InfeasibleBudgetError):
        retrofit.teach_gates(-0.1)
