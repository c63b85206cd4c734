"""The laws of the house: an agent names no method, a method is one file, and no family of subclasses grows."""

import ast
from pathlib import Path

import pytest

import agents
from agents.behaviour_cloning import BehaviourCloning
from agents.loop.agent import OffPolicyAgent

ROOT = Path(agents.__file__).parent
FORBIDDEN = ("exit", "gate", "mask", "sparsity", "prune")
CLASSES = [
    found
    for found in (*(getattr(agents, name) for name in agents.__all__), BehaviourCloning)
    if isinstance(found, type) and issubclass(found, OffPolicyAgent)
]


def names_in(tree: ast.AST) -> set[str]:
    """Return every name that a program uses or defines; docstrings and comments are none."""
    found: set[str] = set()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            found |= {value} if isinstance(value, str) else set()
    return found


def test_names_are_found() -> None:
    assert names_in(ast.parse("import a.gate as b\ndef f(x, *, mask=1): return x.prune(exit=2)")) >= {
        *("a.gate", "b", "f", "x", "mask", "prune", "exit"),
    }


@pytest.mark.parametrize("agent", ["sac", "td3", "dqn", "cql"])
def test_an_agent_names_no_method(agent: str) -> None:
    names = names_in(ast.parse((ROOT / f"{agent}.py").read_text()))
    assert {name for name in names if any(word in name.lower() for word in FORBIDDEN)} == set()


def test_polyprune_is_one_short_file() -> None:
    assert len((ROOT / "methods" / "polyprune.py").read_text().splitlines()) <= 80


def test_there_are_agents_to_check() -> None:
    assert len(CLASSES) == 28


@pytest.mark.parametrize("agent", CLASSES, ids=lambda agent: agent.__name__)
def test_an_agent_is_at_most_four_classes_and_a_method_is_defined_in_three_of_them_at_most(agent: type) -> None:
    ours = agent.__mro__[: agent.__mro__.index(OffPolicyAgent)]
    assert len(ours) <= 4
    kinds = (property, classmethod, staticmethod)
    defined = [name for cls in ours for name, value in vars(cls).items() if callable(value) or isinstance(value, kinds)]
    assert {name for name in defined if defined.count(name) > 3} == set()
