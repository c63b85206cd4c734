"""Former names of modules lead to the modules of now, with a warning; scripts and stored environment ids rely on it."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

import agents
from agents.former import NOW, PACKAGES, FormerNames

ROOT = Path(agents.__file__).parents[1]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test import former names for the first time."""
    for name in (*NOW, *PACKAGES):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for package in PACKAGES:
        monkeypatch.delattr(agents, package.rpartition(".")[2], raising=False)


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("agents.recipes.asymmetric", "agents.methods.asymmetric"),
        ("agents.common.report", "agents.report.report"),
        ("agents.common.config", "agents.config"),
        ("agents.recipes.bexa_dqn", "agents.methods.bexa"),
        ("agents.recipes.bexa_cql", "agents.methods.bexa"),
    ],
)
def test_a_former_name_is_the_module_of_now_with_a_warning(former: str, now: str) -> None:
    module = importlib.import_module(now)
    name, spec, file = module.__name__, module.__spec__, module.__file__
    with pytest.warns(DeprecationWarning, match=f"^{former} is now {now}$"):
        found = importlib.import_module(former)
    assert found is module
    assert sys.modules[former] is sys.modules[now] is module
    assert (module.__name__, module.__spec__, module.__file__) == (name, spec, file) == (now, spec, file)


def test_every_former_name_has_its_module_and_none_is_made_anew() -> None:
    for now in NOW.values():
        importlib.import_module(now)
    before = {id(module) for module in sys.modules.values()}
    for former, now in NOW.items():
        with pytest.warns(DeprecationWarning, match=f"{former} is now {now}"):
            assert importlib.import_module(former) is sys.modules[now]
    made = {module.__name__ for module in sys.modules.values() if id(module) not in before}
    assert made == set(PACKAGES)  # the two folders, which are empty


def test_each_way_of_importing_finds_the_module_of_now() -> None:
    import agents.methods.asymmetric as now

    with pytest.warns(DeprecationWarning):
        import agents.recipes.asymmetric
    assert agents.recipes.asymmetric is now
    with pytest.warns(DeprecationWarning):
        from agents.common import buffers
    with pytest.warns(DeprecationWarning):
        from agents.recipes.exits import Exits
    assert buffers is sys.modules["agents.replay.buffers"]
    assert Exits is agents.Exits


def test_a_second_import_warns_no_more() -> None:
    with pytest.warns(DeprecationWarning):
        first = importlib.import_module("agents.common.mlp")
    assert importlib.import_module("agents.common.mlp") is first  # a warning would be an error here


def test_a_former_name_imported_first_is_the_module_of_now() -> None:
    # In a process of its own, where nothing was imported yet.
    program = (
        "import warnings; warnings.simplefilter('ignore'); import agents.recipes.bexa as former, sys; "
        "assert former is sys.modules['agents.methods.bexa']; from agents import BexaSAC; "
        "assert former.BexaSAC is BexaSAC; assert BexaSAC.__module__ == 'agents.methods.bexa'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_stored_environment_ids_register_their_environments() -> None:
    # gymnasium.make("module:id") imports the module and then looks the id up.
    module, _, env_id = "agents.recipes.environments:budget/AntContactForces-v0".partition(":")
    with pytest.warns(DeprecationWarning, match=r"is now agents\.studies\.environments"):
        importlib.import_module(module)
    assert gym.registry[env_id].entry_point == "agents.studies.environments:ant_with_contact_forces"


@pytest.mark.parametrize(
    "name",
    [
        "agents.recipes.asymmetrical",
        "agents.common.asymmetric",  # it was in recipes
        "agents.recipes.exits_config",  # younger than the names of now
        "agents.commons",
        "agents.commons.report",
    ],
)
def test_unknown_names_are_not_found(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name.removesuffix('.report')}'"):
        importlib.import_module(name)
    assert FormerNames().find_spec(name, None) is None


def test_no_former_name_hides_a_module_that_exists() -> None:
    for former in (*PACKAGES, *NOW):
        assert not (ROOT / Path(*former.split("."))).with_suffix(".py").exists()
    assert all(importlib.util.find_spec(now) is not None for now in NOW.values())
