"""Agents that become sparse, at their own pace or on a schedule, keep the contract of agents."""

from typing import Any, ClassVar

from agents import (
    DistillDiscreteCQL,
    DistillDQN,
    EauDeDiscreteCQL,
    EauDeDQN,
    EauDeSAC,
    EauDeTD3,
    PolyPruneDiscreteCQL,
    PolyPruneDQN,
    PolyPruneSAC,
    PolyPruneTD3,
)

# The module and not its classes, which would be collected here a second time.
from tests.contracts import test_agents as plain
from tests.contracts.agent import OnlineContract

POPULATION: dict[str, Any] = {
    "members": 4,
    "tournament": 2,
    "max_growth": 30.0,
    "growth_cap": 0.5,
    "growth_end": 0.5,
    "selection": "random",
    "selection_loss": "full",
    "mask_distribution": "uniform",
}
OF_VALUES = {
    **POPULATION,
    "generation_every": 1_000,  # of critics only
    "generation_targets": 2,
    "tau": 1.0,  # the only one that a population takes
    "prioritized": False,
    "priority_alpha": 0.6,
    "priority_beta": 0.4,
}
OF_CRITICS = {**POPULATION, "generation_every": 3, "generation_targets": 1}
SCHEDULE: dict[str, Any] = {
    "final": 0.3,
    "power": 1.0,
    "start": 0.0,
    "end": 0.5,
    "every": 2,
    "at_targets": False,
    "distribution": "uniform",
    "actor_final": 0.5,
    "actor_start": 0.1,
    "actor_end": 0.5,
}
# The published .95 leaves no path in nets of a few units.
SMALL = {"final": 0.5}
ALONE = {**SCHEDULE, "actor_final": 0.0, "at_targets": True, "loss": "huber"}


class TestEauDeDQN(OnlineContract):
    agent_class = EauDeDQN
    discrete = True
    flips: ClassVar = {**plain.TestDQN.flips, **OF_VALUES, "loss": "huber"}

    losses = plain.TestDQN.losses
    torch_actions = plain.TestDQN.torch_actions


class TestEauDeDiscreteCQL(plain.OfflineContract):
    agent_class = EauDeDiscreteCQL
    discrete = True
    flips: ClassVar = {**plain.TestDiscreteCQL.flips, **OF_VALUES, "loss": "huber"}

    losses = plain.TestDiscreteCQL.losses
    torch_actions = plain.TestDiscreteCQL.torch_actions


class TestEauDeSAC(OnlineContract):
    agent_class = EauDeSAC
    flips: ClassVar = {**plain.TestSAC.flips, **OF_CRITICS}

    losses = plain.TestSAC.losses
    torch_actions = plain.TestSAC.torch_actions


class TestEauDeTD3(OnlineContract):
    agent_class = EauDeTD3
    flips: ClassVar = {**plain.TestTD3.flips, **OF_CRITICS}

    losses = plain.TestTD3.losses
    torch_actions = plain.TestTD3.torch_actions


class TestPolyPruneDQN(OnlineContract):
    agent_class = PolyPruneDQN
    settings: ClassVar = {**OnlineContract.settings, **SMALL}
    discrete = True
    flips: ClassVar = {**plain.TestDQN.flips, **ALONE}

    losses = plain.TestDQN.losses
    torch_actions = plain.TestDQN.torch_actions


class TestPolyPruneDiscreteCQL(plain.OfflineContract):
    agent_class = PolyPruneDiscreteCQL
    settings: ClassVar = {**plain.TestDiscreteCQL.settings, **SMALL}
    discrete = True
    flips: ClassVar = {**plain.TestDiscreteCQL.flips, **ALONE}

    losses = plain.TestDiscreteCQL.losses
    torch_actions = plain.TestDiscreteCQL.torch_actions


class TestPolyPruneSAC(OnlineContract):
    agent_class = PolyPruneSAC
    settings: ClassVar = {**OnlineContract.settings, **SMALL}
    flips: ClassVar = {**plain.TestSAC.flips, **SCHEDULE}

    losses = plain.TestSAC.losses
    torch_actions = plain.TestSAC.torch_actions


class TestPolyPruneTD3(OnlineContract):
    agent_class = PolyPruneTD3
    settings: ClassVar = {**OnlineContract.settings, **SMALL}
    flips: ClassVar = {**plain.TestTD3.flips, **SCHEDULE}

    losses = plain.TestTD3.losses
    torch_actions = plain.TestTD3.torch_actions


class TestDistillDQN(OnlineContract):
    agent_class = DistillDQN
    settings: ClassVar = {**OnlineContract.settings, **SMALL}
    discrete = True
    flips: ClassVar = {**plain.TestDQN.flips, **ALONE, "at_targets": False}

    losses = plain.TestDQN.losses
    torch_actions = plain.TestDQN.torch_actions


class TestDistillDiscreteCQL(plain.OfflineContract):
    agent_class = DistillDiscreteCQL
    settings: ClassVar = {**plain.TestDiscreteCQL.settings, **SMALL}
    discrete = True
    flips: ClassVar = {**plain.TestDiscreteCQL.flips, **ALONE, "at_targets": False}

    losses = plain.TestDiscreteCQL.losses
    torch_actions = plain.TestDiscreteCQL.torch_actions
