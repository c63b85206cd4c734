"""Populations in agents: one member is the plain agent, many are plain agents side by side, pruned weights stay 0."""

import copy
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from agents import DQN, Exits, Population
from agents.loop.method import Method
from agents.methods import population as module
from agents.nets.together import BatchedPerceptron
from budget_wrappers.metering import count_flops
from budget_wrappers.wrappers import RecordComputeStatistics
from tests.agents.methods.combining import AGENTS, made, units

VALUES, CRITICS = ("dqn", "discrete-cql"), ("sac", "td3", "cql")
FAST: dict[str, dict[str, Any]] = {
    **{name: {"target_update_interval": 20} for name in VALUES},
    **{name: {} for name in CRITICS},
}
"""Settings with which generations come often."""


def population(name: str, **settings: Any) -> Population:
    """Return a population whose sparsities grow within a hundred updates."""
    often = {} if name in VALUES else {"generation_every": 20}
    return Population(**{"members": 4, "max_growth": 30.0, "growth_cap": 0.2, **often, **settings})


def tensors(agent: Any) -> dict[str, torch.Tensor]:
    """Return every number of the agent's own networks and optimizers."""
    found = {f"{n}/{k}": v for n, part in agent.own_modules.items() for k, v in part.state_dict().items()}
    for name, optimizer in agent.own_optimizers.items():
        for group in optimizer.lists:
            for kind, stored in (("first", group.first), ("second", group.second), ("steps", group.steps[:1])):
                for number, tensor in enumerate(stored):
                    found[f"{name}/{kind}/{len(found)}/{number}"] = tensor
    return {key: value.detach().clone() for key, value in found.items()}


def assert_equal(one: Any, other: Any) -> None:
    """Assert that two agents have the same numbers, to the bit; optimizers may be grouped in another way."""
    own, others = tensors(one), tensors(other)
    weights = {key for key in own if "/first/" not in key and "/second/" not in key and "/steps/" not in key}
    assert weights == {key for key in others if "/first/" not in key and "/second/" not in key and "/steps/" not in key}
    assert [key for key in sorted(weights) if not torch.equal(own[key], others[key])] == []
    for moment in ("/first/", "/second/"):
        pair = [[value for key, value in found.items() if moment in key] for found in (own, others)]
        assert all(torch.equal(a, b) for a, b in zip(*pair, strict=True))


# ---- what it is when there is nothing to select ---------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_one_member_is_the_plain_agent_to_the_bit(name: str) -> None:
    plain = made(name, [], **FAST[name]).learn(300)
    alone = made(name, [population(name, members=1)], **FAST[name]).learn(300)
    assert_equal(plain, alone)
    assert alone.sparsity == 0.0


@pytest.mark.parametrize("name", AGENTS)
def test_without_growth_nothing_is_pruned(name: str) -> None:
    agent = made(name, [population(name, max_growth=0.0)], **FAST[name]).learn(300)
    assert agent.populations[0].generation > 3
    assert not any(own.sparsities.any() for own in agent.populations)
    assert all(bool(mask.all()) for one in agent.method("population").members for mask in one._masks.values())


@pytest.mark.parametrize("loss", ["huber", "squared"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("together", [True, False])
def test_each_member_is_a_plain_agent_that_learns_alone_from_the_same_batches_and_targets(
    loss: str, double: bool, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = made("dqn", [population("dqn", members=3)], target_update_interval=10**6, loss=loss, double=double)
    agent.learn(120)
    if not together:
        monkeypatch.setattr(module.Population, "_all_at_once", lambda *_: None)
    held = agent.method("population").members[0]
    plain = []
    for member in range(3):
        held.show(member)
        one = made("dqn", [], loss=loss)
        one.q_network.load_state_dict(agent.q_network.state_dict())
        one.target_network.load_state_dict(agent.target_network.state_dict())
        for mine, theirs in zip(one.optimizer.lists[0][1:4], agent.optimizer.lists[0][1:4], strict=True):
            for a, b in zip(mine, theirs, strict=True):
                a.copy_(b)
        plain.append(one)
    held.show(0)
    crowned = copy.deepcopy(agent.q_network)
    for _ in range(10):
        batch = agent.replay.sample(16, agent.generator)
        target = agent.target(batch)
        crowned.load_state_dict(agent.q_network.state_dict())
        agent.update(batch)
        for one in plain:
            losses, _ = one.network_losses(batch, target)
            one.optimizer.descend(losses.sum(), one.config.max_grad_norm)
    for member, one in enumerate(plain):
        held.show(member)
        assert all(torch.equal(a, b) for a, b in zip(agent.actor.parameters(), one.actor.parameters(), strict=True))


@pytest.mark.parametrize("selection_loss", ["td", "full"])
@pytest.mark.parametrize("name", VALUES)
def test_batched_products_give_the_numbers_of_one_member_after_the_other(
    name: str, selection_loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> Any:
        return made(name, [population(name, selection_loss=selection_loss)], **FAST[name], max_grad_norm=0.05).learn(
            300
        )

    batched = run()
    assert isinstance(batched.method("population")._together, module.StepTogether)
    monkeypatch.setattr(module.Population, "_all_at_once", lambda *_: None)
    looped = run()
    assert_equal(batched, looped)
    assert batched.populations[0].state_dict() == looped.populations[0].state_dict()


def test_batched_products_have_the_derivatives_of_autograd() -> None:
    torch.manual_seed(0)
    parameters = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 5, 4), (3, 5), (3, 2, 5), (3, 2))
    ]
    x = torch.randn(6, 4, dtype=torch.float64)
    for activation in ("relu", "tanh"):
        assert torch.autograd.gradcheck(lambda *own, f=activation: BatchedPerceptron.apply(x, f, *own), parameters)


# ---- pruned weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_pruned_weights_are_exactly_0_after_every_update_and_never_come_back(name: str) -> None:
    agent = made(name, [population(name)], **FAST[name])
    held, seen = agent.method("population"), []

    def look(agent: Any) -> bool:
        for one, own in zip(held.members, agent.populations, strict=True):
            for key, masks in one._masks.items():
                gone = masks == 0
                assert not one._weights[key][gone].any()
                assert not one._target_weights or not one._target_weights[key][gone].any()
            for member in range(one.count):
                assert one.sparsity(member) == pytest.approx(own.sparsities[member], abs=0.02)
        if name in VALUES:
            shown = dict(zip(held.members[0]._weights, linear_weights(agent.target_network), strict=True))
            seen.append(sum(int((weight == 0).sum()) for weight in shown.values()))
        return True

    agent.learn(400, callback=look)
    assert max(own.sparsities.max() for own in agent.populations) > 0.3
    assert all(math.isfinite(float(value)) for value in agent.logged().values())
    logged = agent.logged()
    assert float(logged["sparsity/crowned/realised"]) == pytest.approx(agent.sparsity)
    assert float(logged["sparsity/crowned/effective"]) >= float(logged["sparsity/crowned/realised"])


def linear_weights(network: nn.Module) -> list[torch.Tensor]:
    """Return the weights of the linear layers of ``network``."""
    return [part.weight for part in network.modules() if isinstance(part, nn.Linear)]


def test_the_target_is_the_crowned_member_whether_it_is_chosen_before_or_after_the_overwriting() -> None:
    agent = made("dqn", [population("dqn")], target_update_interval=20)
    held, before = agent.method("population"), {}
    advance = held.populations[0].advance if hasattr(held, "populations") else None
    assert advance is not None

    def noting(*arguments: Any) -> Any:
        one = held.members[0]
        before["best"] = [view.clone() for view in one._views[held.populations[0].best]]
        return advance(*arguments)

    held.populations[0].advance = noting
    moved = []

    def look(agent: Any) -> bool:
        if before:
            moved.append(
                all(torch.equal(a, b) for a, b in zip(before["best"], agent.target_network.parameters(), strict=True))
            )
            before.clear()
        return True

    agent.learn(400, callback=look)
    assert len(moved) > 10
    assert all(moved)


def test_right_after_a_selection_the_best_critic_before_it_is_crowned_and_the_first_one_says_the_target() -> None:
    # Losses are 0 then, of which the first is the least: one target is the first member's, as published.
    agent = made("sac", [population("sac")])
    held, best = agent.method("population"), []
    for own in agent.populations:
        advance = own.advance

        def noting(*arguments: Any, own: Any = own, advance: Any = advance) -> Any:
            best.append(own.best)
            return advance(*arguments)

        own.advance = noting
    agent.learn(100 + 200)
    assert agent.num_updates == 200
    assert [own.crowned for own in agent.populations] == best[-2:]
    assert [one.shown for one in held.members] == best[-2:]
    assert [one.target_shown for one in held.members] == [0, 0]
    assert any(best)  # or the test would not tell them apart


# ---- accounts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("members", [1, 2, 5])
def test_an_update_costs_one_target_and_each_member_s_pass(members: int, double: bool) -> None:
    # CartPole with 16 and 16 units: F = 2·(4·16 + 16·16 + 16·2) = 704 a row, of which the first layer 128.
    agent = made("dqn", [population("dqn", members=members, tournament=1)], double=double).learn(120)
    forward, first = 704, 128
    assert count_flops(agent.q_network, torch.zeros(1, 4)) == forward
    rows = agent.config.batch_size
    before = agent.meter.totals["learn"]
    agent.train(3)
    a_row = forward * (1 + double) + members * (3 * forward - first)
    assert agent.meter.totals["learn"] - before == 3 * rows * a_row
    assert agent.flops_per_action == forward


def test_acting_costs_one_member_whatever_their_number() -> None:
    costs = []
    for members in (1, 5):
        env = RecordComputeStatistics(gym.make("CartPole-v1", max_episode_steps=20))
        agent = DQN(
            env,
            methods=[population("dqn", members=members, tournament=1)],
            learning_starts=0,
            exploration_initial_eps=0.0,
            exploration_final_eps=0.0,
            net_arch=(16, 16),
        )
        agent.learn(60)
        observation, _ = env.reset(seed=0)
        agent.predict(observation)
        costs.append(float(env.step(0)[4]["cost"]))
    assert costs == [704.0, 704.0]


# ---- members that diverge, copies, files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_a_member_that_has_diverged_is_overwritten_and_the_run_goes_on(name: str, tmp_path: Any) -> None:
    agent = made(name, [population(name)], **FAST[name]).learn(150)
    held = agent.method("population")
    for one, own in zip(held.members, agent.populations, strict=True):
        lost = (own.crowned + 1) % 4
        for view in one._views[lost]:
            view.fill_(math.nan)
    agent.train(1)
    assert any(math.isnan(loss) for own in agent.populations for loss in own.losses)
    assert all(math.isfinite(float(value)) for value in agent.metrics.values())
    agent.save(tmp_path / "agent")
    assert all(
        bool(value.isfinite().all()) for part in agent.own_modules.values() for value in part.state_dict().values()
    )
    twin = type(agent).load(tmp_path / "agent", agent.env)
    assert [own.state_dict() for own in twin.populations] == [own.state_dict() for own in agent.populations]
    agent.learn(100)
    assert all(bool(view.isfinite().all()) for one in held.members for own in one._views for view in own)


@pytest.mark.parametrize("name", AGENTS)
def test_a_copy_of_an_agent_learns_as_the_agent_does(name: str) -> None:
    agent = made(name, [population(name)], **FAST[name]).learn(200)
    twin = copy.deepcopy(agent)
    for one in (agent, twin):
        one.train(30)
    assert_equal(agent, twin)
    stacks = [[*one.method("population").members[0].buffers()] for one in (agent, twin)]
    assert all(torch.equal(a, b) for a, b in zip(*stacks, strict=True))
    assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(*stacks, strict=True))


@pytest.mark.parametrize("name", AGENTS)
def test_a_saved_agent_acts_as_the_crowned_member_and_learns_on(name: str, tmp_path: Any) -> None:
    agent = made(name, [population(name)], **FAST[name]).learn(200)
    agent.save(tmp_path / "agent", replay=True)
    twin = type(agent).load(tmp_path / "agent", agent.env)
    if agent.offline:
        twin.replay = agent.replay
    rows = np.random.default_rng(0).normal(size=(20, *agent.observation_shape)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(rows)[0], twin.predict(rows)[0])
    for one in (agent, twin):
        one.train(30)
    assert_equal(agent, twin)


def test_evaluations_see_the_crowned_member() -> None:
    agent = made("dqn", [population("dqn")], **FAST["dqn"]).learn(200)
    held = agent.method("population").members[0]
    crowned = held._views[agent.populations[0].crowned]
    assert all(torch.equal(a, b) for a, b in zip(agent.actor.parameters(), crowned, strict=True))
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(agent.actor.parameters(), crowned, strict=True))


# ---- beside other methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_a_removal_of_units_reaches_every_member_mask_and_target(name: str) -> None:
    of_critics = {} if name in VALUES else {"max_critic_parameters": 300}
    agent = made(name, [population(name), units(**of_critics)], **FAST[name]).learn(600)
    network = "q_network" if name in VALUES else "critic"
    assert sum(parameter.numel() for parameter in agent.actor.parameters()) <= 150
    held = agent.method("population")
    windows = [agent.q_network] if name in VALUES else list(agent.critic.members)
    for one, window in zip(held.members, windows, strict=True):
        shapes = [tuple(weight.shape) for weight in linear_weights(window)]
        assert [tuple(stack.shape) for stack in one._weights.values()] == [(4, *shape) for shape in shapes]
        assert [tuple(stack.shape) for stack in one._masks.values()] == [(4, *shape) for shape in shapes]
        assert not any(
            own[mask == 0].any() for own, mask in zip(one._weights.values(), one._masks.values(), strict=True)
        )
    target = agent.own_modules["target_network" if name in VALUES else "target_critic"]
    assert [w.shape for w in linear_weights(target)] == [w.shape for w in linear_weights(agent.own_modules[network])]
    assert min(weight.shape[0] for weight in linear_weights(windows[0])) >= 1
    assert agent.sparsities()["crowned/effective"] >= 0.0
    agent.train(5)


@pytest.mark.parametrize("name", AGENTS)
def test_exits_and_a_population_share_an_agent(name: str) -> None:
    exits = Exits(budget=0.4, gate_loss="mixture", gate_loss_scale=1.0, scheme="jointly")
    agent = made(name, [exits, population(name)], **FAST[name]).learn(400)
    assert agent.populations[0].generation > 3
    logged = agent.logged()
    assert all(math.isfinite(float(value)) for value in logged.values())
    assert agent.flops_per_action == max(agent.exits.flops)
    assert float(logged["gate/expected_cost"]) <= 0.6


def test_a_method_of_another_name_may_stand_beside_it() -> None:
    class Nothing(Method):
        name = "nothing"

    batched, looped = (
        made("dqn", [population("dqn"), *others], **FAST["dqn"]).learn(200) for others in ([], [Nothing()])
    )
    assert looped.method("population")._together is None
    assert_equal(batched, looped)
