"""The wrappers for teams repeat the names of those for one agent, and their catalogue's form."""

import importlib
import inspect
import re

import pytest

import budget_wrappers.wrappers
from budget_wrappers.wrappers.multi_agent import aec, parallel

WRAPPERS = [(kind, name) for kind in (parallel, aec) for name in kind.__all__]
every_wrapper = pytest.mark.parametrize(("kind", "name"), WRAPPERS, ids=[f"{k.__name__[-3:]}-{n}" for k, n in WRAPPERS])


def test_both_apis_have_the_same_wrappers_under_the_names_for_one_agent() -> None:
    assert parallel.__all__ == aec.__all__
    assert set(parallel.__all__) <= set(budget_wrappers.wrappers.__all__)


@every_wrapper
def test_a_docstring_has_the_catalogues_form(kind: object, name: str) -> None:
    wrapper = getattr(kind, name)
    first, empty, *rest = inspect.getdoc(wrapper).splitlines()
    assert first.endswith(".")
    assert len(first) <= 110
    assert empty == ""
    assert any(line.strip().startswith(">>> ") for line in rest)
    assert "Change logs:" in rest
    assert len(inspect.getsource(wrapper).splitlines()) <= 130


@every_wrapper
def test_a_docstring_names_the_version_for_the_other_api(kind: object, name: str) -> None:
    named = re.search(
        r"A version for \w+ environments exists: ``(multi_agent\.\w+)\.(\w+)``", getattr(kind, name).__doc__
    )
    assert named is not None
    other = importlib.import_module(f"budget_wrappers.wrappers.{named[1]}")
    assert other is not kind
    assert named[2] == name
    assert hasattr(other, name)


@every_wrapper
def test_arguments_are_those_for_the_other_api_up_to_what_it_cannot_have(kind: object, name: str) -> None:
    both = [list(inspect.signature(getattr(one, name)).parameters) for one in (parallel, aec)]
    assert [argument for argument in both[0] if argument != "floor"] == both[1]  # see aec.ComputePenaltyReward
