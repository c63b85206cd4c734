"""Methods combine in any agent, each option of each method works, and without methods an agent is the textbook's."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import SAC, Asymmetric, BexaSAC, Exits, PolyPrune, Units
from agents.loop.evaluate import evaluate_policy, undisturbed
from agents.loop.method import Method
from agents.methods.exits_config import ExitsConfig
from agents.methods.polyprune_config import PolyPruneConfig
from agents.methods.units_config import UnitsConfig
from agents.nets.networks import squashed_gaussian
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import layer_sparsities
from budget_wrappers.wrappers import ComputeLimit, RecordComputeStatistics
from tests.agents.methods.combining import AGENTS, FINAL, METHODS, STEPS, made, polyprune


@pytest.mark.parametrize("methods", METHODS)
@pytest.mark.parametrize("name", AGENTS)
def test_any_agent_with_any_methods_keeps_sparsity_budget_and_size(name: str, methods: str) -> None:
    agent = made(name, METHODS[methods]()).learn(STEPS)
    logged = {key: float(value) for key, value in agent.logged().items()}
    assert all(np.isfinite(value) for value in logged.values())
    network = "q_network" if agent.discrete else "critic"
    if "units" in methods:
        acting = sum(parameter.numel() for parameter in agent.actor.parameters())
        assert acting == agent.parameters_of() <= 150
    if "polyprune" in methods:
        held = agent.method("polyprune").masks
        assert list(held) == [network]
        assert all(weight[mask == 0].eq(0).all() for masks in held.values() for weight, mask in masked(masks))
    if "polyprune" in methods and not ("units" in methods and agent.discrete):  # else masked units went, too
        wanted = layer_sparsities(held[network].shapes, FINAL, "erk")
        weights = [part.weight for part in agent.own_modules[network].modules() if isinstance(part, torch.nn.Linear)]
        for weight, share in zip(weights, wanted, strict=True):
            assert abs(int((weight == 0).sum()) - share * weight.numel()) <= 1.0
        assert logged[f"sparsity/{network}"] == pytest.approx(FINAL, abs=0.01)
    if "exits" in methods:
        # An upper bound, of which gates that have learned for 500 updates may miss a tenth; they began at .5 to .6.
        assert logged["gate/expected_cost"] <= 0.4 + 0.1
        assert agent.spending({"exit 1": 0.6, "exit 3": 0.4}) == pytest.approx({"cost": 0.4, "budget": 0.4})
        assert agent.offline or logged["acting/cost"] == pytest.approx(agent.exits.cost_of(agent.exits.counts))
        assert agent.flops_per_action == max(agent.exits.flops)


def masked(masks: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each weight with its mask."""
    layers, own = masks._layers(), masks._masks()
    return [(layer.weight, own[key]) for key, layer in layers.items()]


@pytest.mark.parametrize("name", AGENTS)
def test_pruning_is_complete_at_its_end_whatever_the_interval(name: str) -> None:
    agent = made(name, [polyprune(every=10_000)]).learn(STEPS)
    (masks,) = agent.method("polyprune").masks.values()
    assert float(masks.sparsity()) == pytest.approx(FINAL, abs=0.01)


# ---- options --------------------------------------------------------------------------------------------------------

FLIPS: dict[type, dict[str, Any]] = {
    ExitsConfig: {
        "exit_after": (0, 2),
        "budget": 0.1,
        "budget_from_observation": None,  # needs a wrapper: test_bexa_budget.py
        "budget_feedback": 1e-3,
        "gate_training": "softmax",
        "gate_loss": "mixture",
        "gate_loss_scale": 0.5,
        "gate_interval": 2,
        "gate_temperature": {"gate_training": "softmax", "gate_temperature": 0.5},
        "gate_fraction": {"gate_training": "fraction", "gate_fraction": 0.5},
        "gate": "threshold",
        "acting": "ensemble",
        "exit_training": "imitate",
        "imitation_scale": {"exit_training": "imitate", "imitation_scale": 1.0},
        "scheme": "stepwise",
        "critic_learning_rate": 1e-3,
    },
    UnitsConfig: {
        "max_parameters": 60,  # of 122
        "max_flops": 120,  # of 208
        "max_latency_us": None,  # needs a device's profile: test_units.py
        "device_profile": None,
        "max_critic_parameters": 150,  # of 2·121
        "unit_penalty": 1e-5,
        "critic_unit_penalty": 1e-6,
        "learn_from": 0.4,
        "fix_from": 0.95,
        "drop_below": 0.3,
        "prune_every": 5,
        "unit_optimizer": {"unit_optimizer": "sgd", "unit_learning_rate": 0.5},
        "unit_learning_rate": 1e-2,
    },
    PolyPruneConfig: {
        "final": 0.5,
        "power": 1.0,
        "start": 0.0,
        "end": 1.0,
        "every": 7,
        "at_targets": None,  # of networks of values: tests/contracts/test_eaude.py
        "distribution": "uniform",
        "actor_final": 0.6,
        "actor_start": {"actor_final": 0.6, "actor_start": 0.5},
        "actor_end": {"actor_final": 0.6, "actor_end": 0.5},
    },
}
CLASSES = {ExitsConfig: Exits, PolyPruneConfig: PolyPrune, UnitsConfig: Units}


@pytest.mark.parametrize("config", FLIPS, ids=lambda config: config.__name__)
def test_every_option_is_listed_here(config: type) -> None:
    assert FLIPS[config].keys() == {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize(
    ("config", "key"),
    [(config, key) for config, flips in FLIPS.items() for key, value in flips.items() if value is not None],
)
def test_every_option_flipped_alone_learns_beside_the_other_method(config: type, key: str) -> None:
    value = FLIPS[config][key]
    base = {"final": FINAL} if config is PolyPruneConfig else {}
    flipped = CLASSES[config](**{**base, **(value if isinstance(value, dict) else {key: value})})
    other = Exits() if config is PolyPruneConfig else polyprune()
    agent = made("sac", [flipped, other], learning_starts=20, net_arch=(8, 8)).learn(60)
    assert agent.num_updates == 40
    assert getattr(flipped.config, key) != getattr(config(), key)
    assert all(torch.isfinite(p).all() for module in agent.modules.values() for p in module.parameters())


# ---- without methods ------------------------------------------------------------------------------------------------


def test_without_methods_sac_takes_the_textbook_s_step_to_the_bit() -> None:
    ours, twin = (made("sac", [], learning_starts=10).learn(40) for _ in range(2))
    batch = ours.replay.sample(16, torch.Generator().manual_seed(0))
    ours.update(batch)
    alpha = twin.log_ent_coef.detach().exp()
    noise = [torch.randn(1, 16, 1, generator=twin.generator) for _ in range(2)]
    own = squashed_gaussian(*twin.policy(batch.observation), noise[0])
    slope = -(own.log_prob.detach().mean() + twin.target_entropy)
    with torch.no_grad():
        following = squashed_gaussian(*twin.policy(batch.next_observation), noise[1])
        value = twin.target_critic.of_own_actions(batch.next_observation, following.action).amin(0)
        target = torch.addcmul(batch.reward, batch.discount, value - alpha * following.log_prob)
    critic_loss = twin.critic.squared_error(batch.observation, batch.action, target)
    twin.critic_optimizer.descend(critic_loss)
    value = twin.critic.smallest_of_own_actions(batch.observation, own.action)
    twin.actor_optimizer.descend((alpha * own.log_prob - value).mean(1).sum())
    twin.temperature_optimizer.apply([slope])
    with torch.no_grad():
        for target_weight, weight in zip(twin.target_critic.parameters(), twin.critic.parameters(), strict=True):
            target_weight.lerp_(weight, 0.005)
    for mine, theirs in zip(ours.modules.values(), twin.modules.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_a_preset_is_its_composition_to_the_bit() -> None:
    settings = {"net_arch": (8, 8), "batch_size": 16, "learning_starts": 20}
    preset = BexaSAC(gym.make("Pendulum-v1"), budget=0.3, **settings).learn(60)
    composed = SAC(gym.make("Pendulum-v1"), methods=[Exits(budget=0.3)], **settings).learn(60)
    for mine, theirs in zip(preset.modules.values(), composed.modules.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    assert preset.plain_state() == composed.plain_state()
    assert preset.meter.totals == composed.meter.totals


# ---- refusals -------------------------------------------------------------------------------------------------------


class Namesake(Method):
    name = "exits"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SAC(gym.make("Pendulum-v1"), methods=["exits"]), "not 'exits'"),
        (lambda: SAC(gym.make("Pendulum-v1"), methods=[Exits(), Exits()]), "each once"),
        (lambda: BexaSAC(gym.make("Pendulum-v1"), methods=[Exits()]), "each once"),
        (
            lambda: SAC(gym.make("Pendulum-v1"), methods=[Exits()], actor=lambda *_: None),
            r"exits and actor=… each make",
        ),
        (lambda: BexaSAC(gym.make("Pendulum-v1"), actor=lambda *_: None), "BexaSACConfig has no key 'actor'"),
        (lambda: made("dqn", [Exits()], dueling=True), "dueling=True: expected False"),
        (lambda: made("dqn", [Exits(critic_learning_rate=1e-3)]), "no critics"),
        (lambda: made("dqn", [PolyPrune(actor_final=0.5)]), "actor_final=0.5: expected 0"),
        (lambda: made("cql", [Exits(budget_feedback=1e-3)]), "budget_feedback=0.001: expected 0"),
        (lambda: made("sac", [Exits(exit_after=(5,))]), "exit_after=\\(5,\\)"),
        (lambda: Exits(bugdet=0.3), "did you mean 'budget'"),
        (lambda: Exits(budget=-1.0), "budget=-1.0"),
        (lambda: PolyPrune(final=1.0), "final=1.0: expected"),
        (lambda: PolyPrune(start=0.8, end=0.2), "start=0.8: expected"),
        (lambda: Units(max_parameters=-1), "max_parameters=-1: expected a size"),
        (lambda: Units(max_parameters=100, max_flops=100), "max_flops=100: expected 0 beside max_parameters=100"),
        (lambda: Units(max_latency_us=9.0), "device_profile='': expected the file"),
        (lambda: Units(device_profile="device.json"), "device_profile='device.json': expected the file"),
        (lambda: Units(unit_penalty=0.0), "unit_penalty=0.0: expected a price above 0"),
        (lambda: Units(learn_from=0.8, fix_from=0.2), "learn_from=0.8: expected a share"),
        (lambda: Units(drop_below=0.6), "drop_below=0.6: expected a probability"),
        (lambda: Units(unit_learning_rate=0.0), "unit_learning_rate=0.0: expected 'auto'"),
        (lambda: made("dqn", [Units(max_critic_parameters=100)]), "max_critic_parameters=100: expected 0"),
        (lambda: made("sac", [Units(), Exits(scheme="stepwise")]), "set scheme='jointly'"),
        (lambda: PolyPrune(every=0), "every=0: expected at least 1 update"),
        (lambda: Asymmetric(gym.make("Pendulum-v1"), methods=[Exits()]), "small_methods=.*large_methods="),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_agent_offers_what_its_methods_offer_and_nothing_else() -> None:
    plain, given = made("sac", []), made("sac", [Exits(budget=0.3)])
    assert not hasattr(plain, "set_budget")
    given.set_budget(0.1)
    assert given.teacher.budget == 0.1
    assert given.spending({"exit 3": 1.0}) == {"cost": 1.0, "budget": 0.1}
    assert plain.spending({"exit 3": 1.0}) == {}
    with pytest.raises(ConfigError, match="holds no method 'exits'"):
        plain.method("exits")


# ---- asymmetric -----------------------------------------------------------------------------------------------------

ASYMMETRIC: dict[str, Any] = {
    "net_arch": (16, 16),
    "small_net_arch": (4, 4),
    "batch_size": 16,
    "learning_starts": 100,
    "master_learning_starts": 50,
    "master_batch_size": 16,
}


def asymmetric(**settings: Any) -> Asymmetric:
    large = [Exits(budget=0.3), polyprune()]
    return Asymmetric(gym.make("Pendulum-v1"), large_methods=large, **{**ASYMMETRIC, **settings})


def test_flops_of_asymmetric_with_exits_in_large_add_up_to_the_digit() -> None:
    agent = asymmetric().learn(STEPS)
    exits = agent.large.exits
    # Exit 1: gate and head on 3 numbers. Exit 2: a gate, the first stage, gate and head on 16. Exit 3: two gates, both
    # stages, a head.
    assert exits.flops == (
        2 * 3 * (1 + 2),
        2 * 3 + 2 * 3 * 16 + 2 * 16 * (1 + 2),
        2 * 3 + 2 * 3 * 16 + 2 * 16 + 2 * 16 * 16 + 2 * 16 * 2,
    )
    by_name, decisions = dict(agent.meter.by_name), STEPS // 5
    assert by_name["large"] == int(exits.counts @ np.array(exits.flops))
    small = (STEPS - int(exits.counts.sum())) * 2 * (3 * 4 + 4 * 4 + 4 * 2)
    assert by_name["small"] == small
    master = by_name["actor"]  # greedy decisions only: ε-greedy ones and those of the warm-up ask no network
    assert 0 < master < decisions * agent.master.flops_per_action
    assert agent.meter.totals["act"] == by_name["large"] + small + master
    assert float(agent.large.method("polyprune").masks["critic"].sparsity()) == pytest.approx(FINAL, abs=0.01)


def test_an_option_pays_for_the_exits_that_its_steps_left_at() -> None:
    agent = asymmetric(weight=1.0)
    options = agent.choices_in(gym.make("Pendulum-v1"))
    options.reset(seed=0)
    before = agent.meter.by_name.get("large", 0)
    raw = []
    options.subscribe(lambda step: raw.append(step.reward))
    _, reward, *_ = options.step(1)
    spent = agent.meter.by_name["large"] - before
    # One step of small costs 1: 72 FLOPs, 2·(3·4 + 4·4 + 4·2).
    assert sum(raw) - reward == pytest.approx(spent / 72)
    assert options.option_report(spent)[0]["large"] == spent


def test_a_hard_limit_holds_over_exits_in_a_sub_policy() -> None:
    agent = asymmetric().learn(300)
    cheapest = 200 * 72 + 40 * agent.master.flops_per_action
    limit = int(1.5 * cheapest)
    env = RecordComputeStatistics(
        ComputeLimit(agent.choices_in(gym.make("Pendulum-v1")), limit, meter=agent.meter), agent.meter
    )
    for seed in range(3):
        env.reset(seed=seed)
        over, spent = False, 0.0
        while not over:
            _, _, terminated, truncated, info = env.step(1)
            over, spent = terminated or truncated, spent + info["cost"]
        assert spent <= limit
        assert info["compute"]["share_steps"]["large"] > 0


def test_an_evaluation_leaves_no_trace_in_the_counts_of_sub_policies() -> None:
    agent = asymmetric().learn(200)
    before = agent.large.exits.counts.copy()
    with undisturbed(agent):
        evaluate_policy(agent, gym.make("Pendulum-v1"), 1)
    assert (agent.large.exits.counts == before).all()
