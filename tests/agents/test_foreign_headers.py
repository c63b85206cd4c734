"""Checkpoints with right checksums and wrong contents: refused before memory is asked for or anything is filled."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents import SAC, TD3, DiscreteCQL
from agents.loop.checkpoint import restore_agent, save_agent
from agents.methods.exits import Exits
from budget_wrappers.errors import BudgetError, CheckpointError
from tests.agents.small import make_agent, make_env
from tests.agents.test_damaged_checkpoint import crafted

MOST = 10**8
"""Numbers in one tensor, 400 MB: no network of these files has as many."""
Change = Callable[[dict[str, Any], dict[str, Tensor]], Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_agent(make_agent("sac").learn(60), tmp_path_factory.mktemp("saved") / "agent", replay=True)


def config(**changes: Any) -> Change:
    return lambda header, _: header["config"].update(changes)


def entry(*keys: Any, to: Any) -> Change:
    """Return a change of the header's entry at ``keys``."""

    def change(header: dict[str, Any], _: dict[str, Tensor]) -> None:
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = to

    return change


def tensor(name: str, to: Tensor) -> Change:
    return lambda _, tensors: tensors.update({name: to})


# ---- before memory is asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        config(net_arch=[100_000, 100_000]),
        config(net_arch=[20_000] * 4),
        config(net_arch=[8, 10**12]),
        config(n_critics=10**6),
        config(buffer_size=10**12),
        config(buffer_size=10**15),
        config(device="meta"),
        entry("spaces", "observation", "shape", to=[10**12]),
        entry("spaces", "observation", "shape", to=[10**6, 10**6, 10**6, 10**6]),
        entry("spaces", "action", "shape", to=[10**10]),
    ],
    ids=["wide", "deep", "widest", "critics", "replay", "more replay", "meta", "observation", "overflow", "action"],
)
def test_what_the_file_cannot_hold_gets_no_memory(
    change: Change, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = crafted(saved, tmp_path / "crafted.safetensors", change)
    asked, empty = [], torch.empty

    def watched(*size: Any, **settings: Any) -> Tensor:
        shape = size[0] if size and isinstance(size[0], (tuple, list)) else size
        if math.prod(shape) < MOST:
            return empty(*size, **settings)
        made = empty(*size, **{**settings, "device": "meta"})  # so that the test does not take the memory, either
        asked.append(shape)
        return made

    monkeypatch.setattr(torch, "empty", watched)
    try:
        outcome: Any = SAC.load(path, None)
    except Exception as error:  # noqa: BLE001  whatever it is, the assertions follow
        outcome = error
    assert asked == []
    assert isinstance(outcome, BudgetError)


@pytest.mark.parametrize(
    "key", ["env", "meter", "actor", "critic", "methods", "dataset", "q_network", "self", "replay"]
)
def test_a_key_that_is_not_a_setting_never_reaches_the_constructor(key: str, saved: Path, tmp_path: Path) -> None:
    path = crafted(saved, tmp_path / "crafted.safetensors", config(**{key: "chosen by the file"}))
    with pytest.raises(CheckpointError, match=f"no key '{key}'"):
        SAC.load(path, None)


def test_a_file_does_not_choose_which_data_set_is_opened(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = DiscreteCQL(make_env("CartPole-v1"), net_arch=(4, 4), batch_size=4)
    path = save_agent(agent, tmp_path / "cql")
    crafted(path, path, config(dataset="somewhere else"))
    opened: list[Any] = []
    monkeypatch.setattr("agents.loop.offline.read_transitions", lambda dataset, *_: opened.append(dataset))
    with pytest.raises(CheckpointError, match="no key 'dataset'"):
        DiscreteCQL.load(path)
    assert opened == []


# ---- before anything is filled --------------------------------------------------------------------------------------


def everything(agent: Any) -> dict[str, Any]:
    """Return all of an agent's state as plain data."""
    return {
        "networks": {name: copy.deepcopy(module.state_dict()) for name, module in agent.modules.items()},
        "optimizers": {name: copy.deepcopy(one.state_dict()) for name, one in agent.optimizers.items()},
        "generator": agent.generator.get_state(),
        "rng": copy.deepcopy(agent.rng.bit_generator.state),
        "replay": {name: value.clone() for name, value in agent.replay.state_dict().items()},
        "counters": (agent.num_timesteps, agent.num_updates, agent.num_episodes, agent.num_rounds),
        "meter": agent.meter.state_dict(),
        "plain": copy.deepcopy(agent.plain_state()),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


WRONG = {
    "counter as text": entry("counters", "num_timesteps", to="60"),
    "counter below 0": entry("counters", "num_updates", to=-1),
    "counter as fraction": entry("counters", "num_rounds", to=1.5),
    "counter as truth": entry("counters", "num_episodes", to=True),
    "counter as null": entry("counters", "num_updates", to=None),
    "numpy's generator as text": entry("rng", "state", to="text"),
    "numpy's generator of another kind": entry("rng", "bit_generator", to="MT19937"),
    "meter as text": entry("meter", "act", to="7"),
    "meter below 0": entry("meter", "learn", to=-7),
    "torch's generator too short": tensor("generator", torch.zeros(16, dtype=torch.uint8)),
    "torch's generator as floats": tensor("generator", torch.zeros(5056)),
    "step size as text": entry("optimizers", "critic", "groups", 0, "lr", to="fast"),
    "step size as truth": entry("optimizers", "actor", "groups", 0, "lr", to=True),
    "step size below 0": entry("optimizers", "actor", "groups", 0, "lr", to=-1e-3),
    "betas as text": entry("optimizers", "actor", "groups", 0, "betas", to="ab"),
    "moments as whole numbers": lambda _, tensors: tensors.update(
        {n: t.long() for n, t in tensors.items() if n.startswith("optimizer/critic/0/exp_avg")}
    ),
    "a metric of many numbers": tensor("metric/critic_loss", torch.zeros(7)),
    "replay wider": tensor("replay/observation", torch.zeros(60, 4)),
    "replay longer": tensor("replay/reward", torch.zeros(61)),
    "replay of another type": tensor("replay/reward", torch.zeros(60, dtype=torch.int64)),
    "replay without its actions": lambda _, tensors: tensors.pop("replay/action"),
    "replay with more": tensor("replay/more", torch.zeros(60)),
    "replay's place outside": tensor("replay/position", torch.tensor([10**9, 60])),
    "replay's size outside": tensor("replay/position", torch.tensor([60, 10**9])),
    "replay's size below 0": tensor("replay/position", torch.tensor([60, -1])),
    "replay's place as one number": tensor("replay/position", torch.tensor([60])),
    "replay's followers outside": tensor("replay/follower", torch.full((60,), 10**6)),
}


@pytest.fixture(scope="module")
def trained() -> Any:
    return make_agent("sac").learn(50)


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused_and_nothing_is_filled(
    change: Change, saved: Path, trained: Any, tmp_path: Path
) -> None:
    path = crafted(saved, tmp_path / "crafted.safetensors", change)
    before = everything(trained)
    with pytest.raises(CheckpointError, match=r"crafted\.safetensors"):
        restore_agent(trained, path)
    assert same(before, everything(trained))


@pytest.mark.parametrize(
    "change",
    [
        entry("spaces", "action", to={"type": "Box"}),
        entry("spaces", "action", "dtype", to="float33"),
        entry("spaces", "action", "low", to="low"),
        entry("spaces", "observation", "shape", to="abc"),
        entry("spaces", "observation", "high", to=[1, 2]),
        entry("spaces", "observation", "low", to=["-1", "-1", "-8"]),
        entry("spaces", "observation", to=[]),
        entry("spaces", "action", to={"type": "Discrete", "n": -3, "start": 0}),
        entry("spaces", "action", to={"type": "Dict", "spaces": 3}),
        entry("config", "activation", to="gelu"),
        entry("config", "net_arch", to=["8"]),
        entry("config", "gamma", to=None),
        entry("methods", to={"methods": [3]}),
        entry("methods", to={"methods": [{"name": [], "settings": {}}]}),
        entry("structure", to={"critic": 3}),
        entry("agent", to=["SAC"]),
    ],
)
def test_a_header_of_another_form_is_a_named_error(change: Change, saved: Path, tmp_path: Path) -> None:
    path = crafted(saved, tmp_path / "crafted.safetensors", change)
    with pytest.raises(BudgetError, match=r"crafted\.safetensors"):
        SAC.load(path, None)


def test_sound_files_are_restored_as_ever(saved: Path) -> None:
    agent = make_agent("sac").learn(45)
    restore_agent(agent, saved)
    assert (agent.num_timesteps, len(agent.replay)) == (60, 60)
    assert same(everything(agent), everything(SAC.load(saved, make_env("Pendulum-v1"))))


def test_a_replay_that_went_round_is_restored(tmp_path: Path) -> None:
    agent = make_agent("td3", buffer_size=50, learning_starts=1_000).learn(70)
    path = save_agent(agent, tmp_path / "agent", replay=True)
    assert same(everything(TD3.load(path, make_env("Pendulum-v1")))["replay"], everything(agent)["replay"])


@pytest.mark.parametrize("key", ["expected_cost", "information"])
@pytest.mark.parametrize("value", [[], [0.5], "0.5", True], ids=repr)
def test_what_gates_have_found_out_is_a_number(key: str, value: Any, tmp_path: Path) -> None:
    path = save_agent(make_agent("sac", methods=[Exits(budget=0.3)]).learn(60), tmp_path / "agent")
    changed = crafted(path, tmp_path / "changed.safetensors", entry("plain", key, to=value))
    with pytest.raises(BudgetError, match=key):
        restore_agent(make_agent("sac", methods=[Exits(budget=0.3)]), changed)
