"""Layers that change size while an agent learns: outputs, moments, targets, FLOPs and checkpoints follow."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents import DQN, SAC, TD3
from agents.loop.agent import OffPolicyAgent
from agents.loop.checkpoint import restore_agent, save_agent
from agents.methods.exits import Exits
from agents.nets.kept import Kept
from agents.nets.mlp import MLP
from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.surgery import keep_units, merged
from tests.agents.small import EPISODE, make_env
from tests.agents.test_checkpoint import assert_same
from tests.agents.test_damaged_checkpoint import crafted

KEEP = [0, 5, 9, 15]
DEAD = [unit for unit in range(16) if unit not in KEEP]
B = 8
SETTINGS: dict[str, Any] = {"batch_size": B, "learning_starts": 20, "buffer_size": 500, "seed": 3}
X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
A = torch.rand(32, 1, generator=torch.Generator().manual_seed(1)) * 2 - 1


def make(net_arch: tuple[int, ...] = (16, 16), **settings: Any) -> SAC:
    return SAC(make_env("Pendulum-v1"), **{**SETTINGS, "net_arch": net_arch, **settings})


def with_exits(net_arch: tuple[int, ...] = (16, 16)) -> SAC:
    return make(net_arch, methods=[Exits(budget=0.3)])


def first_layers(agent: OffPolicyAgent) -> list[tuple[nn.Linear, list[nn.Linear]]]:
    """Return the first hidden layer of each network, of each member of critics, and the layers that read it."""
    found = []
    for module in agent.own_modules.values():
        for part in module.modules():
            if isinstance(part, MLP):
                found.append((part.linears[0], [part.linears[1]]))
            elif isinstance(part, EarlyExitNetwork):
                found.append((part.stages[1][0], [part.stages[2][0], part.exits[1]]))
    return found


@torch.no_grad()
def kill(agent: OffPolicyAgent) -> None:
    """Let nothing read the units that are not kept."""
    for _, consumers in first_layers(agent):
        for consumer in consumers:
            consumer.weight[:, DEAD] = 0.0


def cut(agent: OffPolicyAgent) -> Kept:
    return merged(*(keep_units(layer, consumers, KEEP) for layer, consumers in first_layers(agent)))


def pruned(agent: OffPolicyAgent) -> OffPolicyAgent:
    """Return the agent with 4 of 16 units in its first hidden layers; the others were dead."""
    kill(agent)
    agent.structure_changed(cut(agent))
    return agent


@torch.no_grad()
def outputs(agent: Any) -> list[Tensor]:
    """Return what actor, critics and target critics say; nothing is charged."""
    with agent.meter.paused():
        return [*agent.policy(X), agent.critic(X, A), agent.target_critic(X, A)]


def moments(agent: OffPolicyAgent) -> dict[nn.Parameter, tuple[Tensor, Tensor]]:
    """Return copies of both moments of each parameter."""
    states = {p: s for optimizer in agent.optimizers.values() for p, s in optimizer.state.items()}
    return {p: (s["exp_avg"].clone(), s["exp_avg_sq"].clone()) for p, s in states.items()}


def charged(agent: OffPolicyAgent, phase: str, work: Callable[[], Any]) -> int:
    before = agent.meter.totals[phase]
    work()
    return int(agent.meter.totals[phase] - before)


AGENTS = pytest.mark.parametrize("maker", [make, with_exits])


# ---- what stays ---------------------------------------------------------------------------------------------------


@AGENTS
def test_outputs_stay_if_the_removed_units_were_dead(maker: Any) -> None:
    agent = maker().learn(60)
    kill(agent)
    before, acted = outputs(agent), agent.exits.network.last(X) if maker is with_exits else agent.act(X.numpy(), True)
    agent.structure_changed(cut(agent))
    for one, other in zip(before, outputs(agent), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    now = agent.exits.network.last(X) if maker is with_exits else agent.act(X.numpy(), True)
    np.testing.assert_allclose(now, acted, atol=1e-6)


@AGENTS
def test_kept_weights_keep_their_moments(maker: Any) -> None:
    agent = maker().learn(60)
    kill(agent)
    before, kept = moments(agent), cut(agent)
    agent.structure_changed(kept)
    after = moments(agent)
    # Actor: weight and bias of the cut layer and of each that reads it; both critics alike. The target has none.
    assert len(kept.keys() & after.keys()) == (4 if maker is with_exits else 3) + 2 * 3
    for parameter, pair in before.items():
        for one, other in zip(pair, after[parameter], strict=True):
            for axis, index in kept.get(parameter, ()):
                one = one.index_select(axis, index)
            assert torch.equal(one, other)
            assert other.shape == parameter.shape
    assert any(pair[0].any() for pair in before.values())


# ---- what is charged ----------------------------------------------------------------------------------------------


def test_an_action_is_charged_what_the_smaller_actor_costs() -> None:
    # 2·(3·16 + 16·16 + 16·2) = 672 before, 2·(3·4 + 4·16 + 16·2) = 216 after.
    agent = make().learn(60)
    assert charged(agent, "act", lambda: agent.predict(X.numpy())) == 32 * 672
    pruned(agent)
    assert agent.flops_per_action == 216
    assert charged(agent, "act", lambda: agent.predict(X.numpy())) == 32 * 216
    agent.numpy_forward = None  # torch charges through the meter's hook
    assert charged(agent, "act", lambda: agent.predict(X.numpy())) == 32 * 216


def test_an_update_is_charged_what_the_smaller_networks_cost() -> None:
    def per_row(h: int) -> int:
        """Return the products of SAC's update a row, hidden layers of h and 16 units.

        Forward the actor runs twice and the pair of critics three times. Gradients of weights cost what a forward pass
        does, once for the actor and once for each critic. Gradients of layers' inputs: 2·h·16 between the hidden layers
        in both critics and in the actor, where the output's 2·16·2 come on top; through the smaller of both critics
        2·h·16 and 2·h·1, to the action. The gradient of one output is not a matrix product.
        """
        actor, critic = 2 * (3 * h + h * 16 + 16 * 2), 2 * (4 * h + h * 16 + 16)
        return (2 + 1) * actor + (3 * 2 + 2) * critic + (2 + 1 + 1) * 2 * h * 16 + 2 * 16 * 2 + 2 * h

    agent = make().learn(60)
    assert charged(agent, "learn", lambda: agent.train(1)) == B * per_row(16)
    pruned(agent)
    found = [charged(agent, "learn", lambda: agent.train(1)) for _ in range(3)]
    assert found == [B * per_row(4)] * 3
    fresh = make((4, 16)).learn(60)
    assert charged(fresh, "learn", lambda: fresh.train(1)) == found[0]


def test_exits_are_charged_and_taught_what_they_cost_now() -> None:
    # Each exit has a head of 2 and, but for the last, a gate. At once 2·(3 + 3·2) = 18. After one layer
    # 2·(3 + 3·4 + 4 + 4·2) = 54, after two 2·(3 + 3·4 + 4 + 4·16 + 16·2) = 230.
    agent = with_exits().learn(60)
    assert agent.exits.flops == (18, 198, 710)
    pruned(agent)
    assert agent.exits.flops == agent.policy.flops == (18, 54, 230)
    assert agent.flops_per_action == 230
    assert agent.teacher.costs == pytest.approx((0, 36 / 212, 1))
    assert agent.exits.normalised(54) == pytest.approx(36 / 212)
    before = agent.exits.counts.copy()
    spent = charged(agent, "act", lambda: agent.predict(X.numpy()))
    assert spent == int((agent.exits.counts - before) @ np.array([18, 54, 230]))
    fresh = with_exits((4, 16)).learn(60)
    assert fresh.exits.flops == agent.exits.flops
    for one in (agent, fresh):  # the budget pays for the same exits, so the programs are the same
        one.set_budget(0.3)
    costs = [charged(one, "learn", lambda one=one: one.train(1)) for one in (agent, fresh)]
    assert costs[0] == costs[1]


# ---- learning goes on ---------------------------------------------------------------------------------------------


@AGENTS
def test_targets_follow_the_smaller_critics(maker: Any) -> None:
    agent = pruned(maker(tau=0.25) if maker is make else maker()).learn(30)
    tau = agent.config.tau
    targets = [p.clone() for p in agent.target_critic.parameters()]
    agent.train(1)
    online = list(agent.critic.parameters())
    for before, now, own in zip(targets, agent.target_critic.parameters(), online, strict=True):
        assert not torch.equal(before, now)
        torch.testing.assert_close(now, (1 - tau) * before + tau * own)


@AGENTS
def test_every_network_goes_on_learning(maker: Any) -> None:
    agent = pruned(maker().learn(60))
    before = {name: [p.detach().clone() for p in module.parameters()] for name, module in agent.own_modules.items()}
    agent.learn(25)
    for name, module in agent.own_modules.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], module.parameters(), strict=True)), name
        assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_copy_follows_its_own_surgery() -> None:
    agent = make().learn(60)
    twin = pruned(copy.deepcopy(agent)).learn(25)
    assert twin.flops_per_action == 216
    agent.learn(25)
    assert agent.flops_per_action == 672


@pytest.mark.parametrize(("agent_class", "name"), [(TD3, "Pendulum-v1"), (DQN, "CartPole-v1")])
def test_other_agents_follow_too(agent_class: Any, name: str, tmp_path: Path) -> None:
    agent = agent_class(make_env(name), net_arch=(16, 16), **SETTINGS).learn(50)
    # CartPole shows 4 numbers and has 2 actions: 2·(4·4 + 4·16 + 16·2) = 224. TD3's actor: 2·(12 + 64 + 16) = 184.
    assert pruned(agent).flops_per_action == {"TD3": 184, "DQN": 224}[agent_class.__name__]
    agent.learn(25 if agent_class is TD3 else 40)
    agent.save(tmp_path / "agent", replay=True)
    loaded = agent_class.load(tmp_path / "agent.safetensors", make_env(name))
    assert_same(agent, loaded, tmp_path)


def test_a_target_of_another_size_is_refused() -> None:
    agent = make().learn(30)
    kept = [keep_units(layer, consumers, KEEP) for layer, consumers in first_layers(agent)[:3]]  # not the targets
    with pytest.raises(
        ConfigError, match=r"members.0.0.weight has the shape \(4, 4\) and in the target network \(16, 4\): .*of both"
    ):
        agent.structure_changed(merged(*kept))


def test_a_step_before_the_agent_was_told_is_refused() -> None:
    agent = make().learn(30)
    cut(agent)
    with pytest.raises(ConfigError, match=r"a parameter of shape \(4, \d\) has moments .*call agent.structure_changed"):
        agent.learn(25)


# ---- checkpoints --------------------------------------------------------------------------------------------------


@AGENTS
def test_a_loaded_agent_goes_on_to_the_same_bits(maker: Any, tmp_path: Path) -> None:
    agent = pruned(maker().learn(2 * EPISODE)).learn(EPISODE)
    agent.save(tmp_path / "agent", replay=True)
    loaded = SAC.load(tmp_path / "agent.safetensors", make_env("Pendulum-v1"))
    assert loaded.flops_per_action == agent.flops_per_action
    assert loaded.structure == agent.structure != {}
    assert_same(agent, loaded, tmp_path)
    for one in (agent, loaded):
        one.learn(2 * EPISODE)
    assert_same(agent, loaded, tmp_path)
    assert (charged(agent, "learn", lambda: agent.train(1))) == charged(loaded, "learn", lambda: loaded.train(1))


def test_a_checkpoint_names_changed_networks_alone(tmp_path: Path) -> None:
    agent = make().learn(30)
    assert agent.structure == {}
    pruned(agent)
    assert agent.structure == {
        "actor": {"net.0": [3, 4], "net.2": [4, 16], "net.4": [16, 2]},
        **{
            name: {
                f"members.{member}.{layer}": sizes
                for member in range(2)
                for layer, sizes in ((0, [4, 4]), (2, [4, 16]), (4, [16, 1]))
            }
            for name in ("critic", "target_critic")
        },
    }


@AGENTS
def test_restoring_takes_the_sizes_of_the_checkpoint_be_they_smaller_or_larger(maker: Any, tmp_path: Path) -> None:
    large, small = maker().learn(2 * EPISODE), pruned(maker().learn(2 * EPISODE)).learn(EPISODE)
    paths = [save_agent(agent, tmp_path / name, replay=True) for name, agent in (("large", large), ("small", small))]
    other = maker().learn(EPISODE)
    for path, stored in ((paths[1], small), (paths[0], large), (paths[1], small)):
        restore_agent(other, path)
        assert_same(other, stored, tmp_path)
        assert other.flops_per_action == stored.flops_per_action
        for one, its in zip(outputs(other), outputs(stored), strict=True):
            assert torch.equal(one, its)
    for agent in (small, other):
        agent.learn(EPISODE)
    assert_same(other, small, tmp_path)


def without_generator(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    del tensors["generator"]


def of_other_weights(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    header["structure"]["actor"]["net.0"] = [3, 5]


def of_layers_that_do_not_fit(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    header["structure"]["actor"]["net.2"] = [5, 16]
    tensors["module/actor/net.2.weight"] = torch.zeros(16, 5)


def of_an_unknown_network(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    header["structure"]["value"] = {"net.0": [3, 4]}


def of_an_unknown_layer(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    header["structure"]["actor"]["net.6"] = [2, 2]


def of_no_units(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    header["structure"]["actor"]["net.0"] = [3, 0]


def of_no_sizes(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    header["structure"]["actor"] = "small"


def of_another_target(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    del header["structure"]["target_critic"]
    for member in range(2):
        tensors[f"module/target_critic/members.{member}.0.weight"] = torch.zeros(16, 4)
        tensors[f"module/target_critic/members.{member}.0.bias"] = torch.zeros(16)
        tensors[f"module/target_critic/members.{member}.2.weight"] = torch.zeros(16, 16)


def without_structure(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    del header["structure"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of an agent whose layers have changed."""
    return save_agent(pruned(make().learn(2 * EPISODE)), tmp_path_factory.mktemp("stored") / "agent")


@pytest.mark.parametrize("is_pruned", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_generator, "lacks generator"),
        (of_other_weights, r"actor.net.0 has 3 inputs and 5 outputs: expected weights of these sizes, found \(4, 3\)"),
        (of_layers_that_do_not_fit, "the structure of actor has layers that do not fit each other"),
        (of_an_unknown_network, "the structure of value is .*make the agent with the configuration"),
        (of_an_unknown_layer, "the structure of actor is .*: expected inputs and outputs of the layers"),
        (of_no_units, "the structure of actor is "),
        (of_no_sizes, "the structure of actor is 'small'"),
        (of_another_target, "expected the same; change the layers of both"),
        (without_structure, "expected"),
    ],
)
def test_a_structure_that_does_not_fit_is_refused_and_the_agent_is_as_it_was(
    change: Any, message: str, is_pruned: bool, stored: Path, tmp_path: Path
) -> None:
    path = crafted(stored, tmp_path / "crafted.safetensors", change)
    agents = [make().learn(2 * EPISODE) for _ in range(2)]
    if is_pruned:
        agents = [pruned(agent) for agent in agents]
    with pytest.raises(CheckpointError, match=message):
        restore_agent(agents[0], path)
    assert_same(*agents, tmp_path)
    assert agents[0].flops_per_action == agents[1].flops_per_action
    for agent in agents:  # and it learns on as if nothing had been asked
        agent.learn(EPISODE)
    assert_same(*agents, tmp_path)
    with pytest.raises(CheckpointError, match=message):
        SAC.load(path, make_env("Pendulum-v1"))
