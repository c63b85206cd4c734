"""What a population cannot be of, or be told, is refused with the value, what was expected and a remedy."""

from typing import Any

import pytest
import torch

from agents import Exits, PolyPrune, Population
from budget_wrappers.errors import ConfigError
from tests.agents.methods.combining import made
from tests.agents.methods.test_population import FAST, population


@pytest.mark.parametrize(
    ("name", "methods", "settings", "message"),
    [
        ("dqn", lambda: [Population()], {"tau": 0.5}, "tau=0.5: expected 1"),
        ("dqn", lambda: [Population()], {"prioritized": True}, "prioritized=True: expected False"),
        ("dqn", lambda: [Population(generation_every=7)], {}, "generation_every=7: expected 1000"),
        ("sac", lambda: [Population(generation_targets=7)], {}, "generation_targets=7: expected 1"),
        ("sac", lambda: [PolyPrune(), Population()], {}, "expected one of them"),
        ("dqn", lambda: [Exits(scheme="stepwise"), Population()], {}, "set scheme='jointly'"),
    ],
)
def test_what_a_population_cannot_be_of_is_refused(
    name: str, methods: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(name, methods(), **settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tournament": 6}, "tournament=6 of members=5"),
        ({"members": 0}, "members=0"),
        ({"max_growth": -1.0}, "max_growth=-1.0: expected 0 or more"),
        ({"max_growth": "wild"}, "max_growth='wild'"),
        ({"growth_cap": 1.1}, "growth_cap=1.1"),
        ({"growth_end": 0.0}, "growth_end=0.0"),
        ({"mask_distribution": "er"}, "mask_distribution='er'"),
        ({"generation_every": 0}, "generation_every=0: expected 1 update or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Population(**given)


def test_units_removed_by_hand_need_to_be_told() -> None:
    agent = made("dqn", [population("dqn")], **FAST["dqn"]).learn(150)
    with torch.no_grad():
        first, second, _ = agent.q_network.net.linears
        first.weight.data, first.bias.data = first.weight.data[:4].clone(), first.bias.data[:4].clone()
        second.weight.data = second.weight.data[:, :4].clone()
    target = agent.target_network.net.linears
    target[0].weight.data, target[0].bias.data = target[0].weight.data[:4].clone(), target[0].bias.data[:4].clone()
    target[1].weight.data = target[1].weight.data[:, :4].clone()
    with pytest.raises(ConfigError, match="expected to be told which units are left"):
        agent.structure_changed()
