"""Every public name resolves, is documented, and a wrapper's docstring is its catalogue entry."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import pytest

import agents
import budget_wrappers
import budget_wrappers.wrappers
import budget_wrappers.wrappers.vector

PACKAGES = (budget_wrappers, agents)
NAMES = [(package, name) for package in PACKAGES for name in package.__all__ if not name.startswith("__")]
ids = [f"{package.__name__}.{name}" for package, name in NAMES]


def wrappers() -> list[type]:
    """Return the public environment wrappers."""
    found = vars(budget_wrappers.wrappers).values()
    return sorted(
        {value for value in found if inspect.isclass(value) and issubclass(value, gym.Wrapper)} - {gym.Wrapper},
        key=lambda value: value.__name__,
    )


@pytest.mark.parametrize(("package", "name"), NAMES, ids=ids)
def test_public_name_is_documented(package: ModuleType, name: str) -> None:
    value = getattr(package, name)
    doc = inspect.getdoc(value)
    assert doc
    # A dataclass without a docstring gets its signature as one.
    assert not (dataclasses.is_dataclass(value) and doc.startswith(f"{name}("))


MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_public_methods_of_a_module_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    classes = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == name]
    undocumented = [
        f"{owner.__name__}.{key}"
        for owner in classes
        if not owner.__name__.startswith("_")
        for key, member in vars(owner).items()
        if not key.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
        # getdoc looks up the base classes: an override need not repeat them.
        and not inspect.getdoc(getattr(owner, key))
    ]
    assert undocumented == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_what_type_checkers_see_is_what_is_loaded(package: ModuleType) -> None:
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
    ]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    loaded = {name: f"{package.__name__}.{home}" for home, names in package._HOMES.items() for name in names}
    assert seen == loaded


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_unknown_name_raises_as_python_does(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_dir_lists_what_can_be_imported(package: ModuleType) -> None:
    assert set(package.__all__) <= set(dir(package))


def vector_wrappers() -> list[type]:
    """Return the public wrappers of vector environments."""
    found = vars(budget_wrappers.wrappers.vector).values()
    return sorted(
        {value for value in found if inspect.isclass(value) and issubclass(value, gym.vector.VectorWrapper)},
        key=lambda value: value.__name__,
    )


def test_there_are_wrappers_to_check() -> None:
    assert len(wrappers()) >= 6
    assert len(vector_wrappers()) >= 5


def test_a_vector_version_is_named_where_there_is_one_and_only_there() -> None:
    named = {wrapper.__name__ for wrapper in wrappers() if "A vector version exists" in inspect.getdoc(wrapper)}
    assert named == {wrapper.__name__ for wrapper in vector_wrappers()}


@pytest.mark.parametrize("wrapper", vector_wrappers(), ids=lambda wrapper: wrapper.__name__)
def test_a_vector_wrapper_names_the_one_for_single_environments(wrapper: type) -> None:
    doc = " ".join(inspect.getdoc(wrapper).split())
    assert f"The vector version of ``budget_wrappers.wrappers.{wrapper.__name__}``" in doc


@pytest.mark.parametrize(
    "wrapper", [*wrappers(), *vector_wrappers()], ids=lambda wrapper: f"{wrapper.__module__}.{wrapper.__name__}"
)
class TestWrapper:
    def test_docstring_begins_with_its_catalogue_line(self, wrapper: type) -> None:
        first, *rest = inspect.getdoc(wrapper).splitlines()
        assert first.endswith(".")
        assert len(first) <= 110
        assert rest
        assert rest[0] == ""

    def test_docstring_says_truly_whether_a_vector_version_exists(self, wrapper: type) -> None:
        doc = " ".join(inspect.getdoc(wrapper).split())
        named = re.search(r"A vector version exists: ``([\w.]+)\.(\w+)``", doc)
        if named is None:
            assert "No vector version exists" in doc or "The vector version of" in doc
        else:
            assert hasattr(importlib.import_module(named[1]), named[2])

    def test_docstring_holds_a_runnable_example(self, wrapper: type) -> None:
        assert ">>> " in inspect.getdoc(wrapper)

    def test_docstring_has_a_change_log(self, wrapper: type) -> None:
        assert "Change logs:" in inspect.getdoc(wrapper)

    def test_class_is_short(self, wrapper: type) -> None:
        assert len(inspect.getsource(wrapper).splitlines()) <= 130

    def test_recorded_constructor_arguments_are_its_parameters(self, wrapper: type) -> None:
        """Read the syntax tree: what is recorded for the spec is exactly what __init__ takes."""
        tree = ast.parse(inspect.getsource(wrapper))
        (init,) = [
            node
            for node in tree.body[0].body
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        ]  # fmt: skip
        calls = [
            node
            for node in ast.walk(init)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("RecordConstructorArgs.__init__")
        ]
        assert len(calls) == 1, "RecordConstructorArgs.__init__ is called once"
        recorded = {keyword.arg for keyword in calls[0].keywords} - {"_disable_deepcopy"}
        arguments = [*init.args.args, *init.args.kwonlyargs]
        assert recorded == {argument.arg for argument in arguments} - {"self", "env"}
