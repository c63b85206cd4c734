"""The losses of exits and gates are the published ones: every number again, by scipy's programs and plain loops."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from agents import BexaSAC, BexaTD3

BUDGET, SCALE = 0.3, 0.5
SMALL = {"net_arch": (8, 8), "batch_size": 8, "learning_starts": 20, "buffer_size": 500, "seed": 3}


def trained(agent_class: Any, **settings: Any) -> Any:
    return agent_class(gym.make("Pendulum-v1"), **SMALL, **settings).learn(60)


def values_of_each(critics: list[Any], observation: Tensor, action: Tensor) -> Tensor:
    """Return what head i of each critic says of action i, ``(M, K, B)``: one head after the other."""
    said = [
        torch.stack([critic(torch.cat([observation, one], 1))[:, i] for i, one in enumerate(action)])
        for critic in critics
    ]
    return torch.stack(said)


def gate_losses(logits: Tensor, values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the mean binary cross-entropy of each gate to what the best shares within the budget ask of it."""
    states, gates = logits.shape
    losses = np.zeros(gates)
    for state in range(states):
        best = linprog(-values[:, state], A_ub=[costs], b_ub=[BUDGET], A_eq=[np.ones(gates + 1)], b_eq=[1]).x
        for gate in range(gates):
            reach = best[gate:].sum()
            if reach > 1e-9:
                wanted, said = best[gate] / reach, float(torch.sigmoid(logits[state, gate]))
                losses[gate] -= (wanted * np.log(said) + (1 - wanted) * np.log(1 - said)) / states
    return losses


def test_losses_of_sac_s_exits_are_entropy_less_value_and_the_gate_s_cross_entropy() -> None:
    agent = trained(BexaSAC, gate_loss_scale=SCALE, budget=BUDGET)
    batch = agent.replay.sample(8, agent.generator)
    own, ent_coef = agent.sample(batch.observation), torch.tensor(0.2)
    with torch.no_grad():
        values = values_of_each(list(agent.critic.members), batch.observation, own.action).amin(0)
        expected = (0.2 * own.log_prob - values).mean(1).numpy()
        costs = np.array(agent.teacher.costs)
        expected[:-1] += SCALE * gate_losses(own.moments.said.logits, values.double().numpy(), costs)
        found = agent.actor_losses(batch, own, ent_coef)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_losses_of_td3_s_exits_are_the_first_critic_s_and_gates_heed_the_smaller_one() -> None:
    agent = trained(BexaTD3, gate_loss_scale=SCALE, budget=BUDGET)
    batch = agent.replay.sample(8, agent.generator)
    with torch.no_grad():
        output, logits = agent.policy(batch.observation)
        each = values_of_each(list(agent.critic.members), batch.observation, torch.tanh(output))
        expected = -each[0].mean(1).numpy()
        costs = np.array(agent.teacher.costs)
        expected[:-1] += SCALE * gate_losses(logits, each.amin(0).double().numpy(), costs)
        found = agent.actor_losses(batch)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_imitating_exits_pay_their_distance_to_the_last_which_is_left_alone() -> None:
    agent = trained(BexaTD3, gate_loss_scale=0.0, exit_training="imitate", imitation_scale=0.4)
    batch = agent.replay.sample(8, agent.generator)
    losses = agent.actor_losses(batch)
    with torch.no_grad():
        action = torch.tanh(agent.policy(batch.observation).output)
        value = agent.critic.members[0](torch.cat([batch.observation, action[-1]], 1)).mean()
        expected = [*(0.4 * (action[:-1] - action[-1]).square().sum(2).mean(1)), -value]
    np.testing.assert_allclose(losses.detach().numpy(), torch.stack(expected).numpy(), rtol=1e-5)
    last = list(agent.policy.exits[-1].parameters())
    copying = torch.autograd.grad(losses[:-1].sum(), last, allow_unused=True, retain_graph=True)
    assert all(gradient is None or not gradient.any() for gradient in copying)
    assert all(gradient.any() for gradient in torch.autograd.grad(losses[-1], last))
