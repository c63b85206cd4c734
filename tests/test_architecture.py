"""The layout as a law: who may import whom, how long a file may be, what it may not be called."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agents
import budget_wrappers

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDERS = ("budget_wrappers", "agents", "benchmarks", "tests", "examples")
SOURCES = sorted(path for folder in SOURCE_FOLDERS for path in (ROOT / folder).rglob("*.py"))
TEXT_SUFFIXES = {".py", ".md", ".cfg", ".toml", ".txt", ".yaml", ".json", ".jsonl", ".html", ""}
# Spelt in parts, so that this file does not contain what it forbids.
MACHINE_PATH = re.compile(
    r"(?<![\w.~/-])/(" + "|".join(("wo" + "rk", "tm" + "p", "ro" + "ot", "ho" + "me", "mn" + "t")) + ")/"
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked_texts() -> list[Path]:
    """Return the text files of the repository, or of the source folders where there is no git."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = listing.stdout.split("\n") if listing.returncode == 0 else [relative(path) for path in SOURCES]
    paths = [ROOT / name for name in names if name]
    return [path for path in paths if path.suffix in TEXT_SUFFIXES and path.is_file()]


def test_imports_go_down_only() -> None:
    lint = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


def module_name(path: Path) -> str:
    """Return the dotted name under which ``path`` is imported; an ``__init__.py`` has its package's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, known: set[str]) -> set[str]:
    """Return the modules of ``known`` that statements anywhere in ``path`` name, in functions and TYPE_CHECKING too.

    ``from package import name`` names the module ``package.name`` if it is one, else the package's ``__init__.py``.
    Python loads the packages around a module too; they are not named, and do not count.
    """
    package = (module_name(path) if path.stem == "__init__" else module_name(path).rpartition(".")[0]).split(".")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            inner = {alias.name: f"{origin}.{alias.name}" for alias in node.names}
            found |= {module if module in known else origin for module in inner.values()}
    return (found & known) - {module_name(path)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module: any two of one component reach each other."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, waiting = set(), [start]
        while waiting:
            fresh = graph[waiting.pop()] - seen
            seen |= fresh
            waiting += fresh
        reached[start] = seen
    found = {frozenset(other for other in graph if other in reached[one] and one in reached[other]) for one in graph}
    return sorted(sorted(component) for component in found if component)


def test_no_module_imports_in_a_circle() -> None:
    # No file is exempt: __init__.py may import from its modules, and then no module of it may import from __init__.py.
    folders = ("budget_wrappers/", "agents/", "benchmarks/")
    modules = {module_name(path): path for path in SOURCES if relative(path).startswith(folders)}
    graph = {name: imports_of(path, set(modules)) for name, path in modules.items()}
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["b", "c"]]


def test_identity_is_never_an_address() -> None:
    # Python gives the address of an object that is gone to the next one. Compare with `is`, or key by the object.
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in SOURCES
        if relative(path).startswith(("budget_wrappers/", "agents/"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id == "id"
    ]
    assert found == []


def limit(path: Path) -> int:
    """An agent is readable alone at 350 lines; every other file holds one idea at 400."""
    return 350 if relative(path).startswith("agents/") else 400


def test_files_hold_one_idea_and_are_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > limit(ROOT / name)} == {}


def test_files_are_named_for_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [relative(path) for path in SOURCES if path.stem in vague] == []


def test_agents_is_ours() -> None:
    # The top-level name is also openai-agents': whichever is imported first wins.
    assert Path(agents.__file__).parent.parent == Path(budget_wrappers.__file__).parent.parent


def test_every_package_is_a_regular_package() -> None:
    # Other distributions leave top-level folders such as benchmarks/ without __init__.py: a regular package wins.
    folders = {path.parent for path in SOURCES if "examples" not in path.parts}
    assert sorted(relative(folder) for folder in folders if not (folder / "__init__.py").exists()) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()[:100]}"
        for path in tracked_texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_nothing_loads_a_format_that_can_run_code() -> None:
    # check_wrapper copies environments through pickle in memory; integrations load foreign files, with trust=True only.
    allowed = ("budget_wrappers/wrappers/checker.py", "budget_wrappers/integrations/")
    pattern = re.compile(
        r"^\s*(import|from)\s+(pickle|cloudpickle|dill|joblib|shelve)\b|torch\.(load|save)\(", re.MULTILINE
    )
    ours = [path for path in SOURCES if relative(path).startswith(("budget_wrappers/", "agents/"))]
    found = [relative(path) for path in ours if pattern.search(path.read_text())]
    assert [name for name in found if not name.startswith(allowed)] == []


def test_pins_satisfy_the_metadata() -> None:
    """Each requirement of setup.cfg that constraints.txt pins is pinned within its bounds."""
    requirements = pytest.importorskip("packaging.requirements")
    utils = pytest.importorskip("packaging.utils")
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line for text in listed for line in text.splitlines() if line and not line.startswith("#")]
    wanted = [requirements.Requirement(line) for line in lines]
    pins = {
        utils.canonicalize_name(name): version
        for name, version in (
            line.split("==")
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if "==" in line and line[0] != "#"
        )
    }
    outside = [str(want) for want in wanted if not want.specifier.contains(pins[utils.canonicalize_name(want.name)])]
    assert outside == []


ONE_MEANING = ("find", "finite_rewards", "require_rows", "rows_of", "table")


def test_one_name_has_one_meaning() -> None:
    # Each of these names stood for several functions once.
    found: dict[str, list[str]] = {name: [] for name in ONE_MEANING}
    for path in SOURCES:
        if relative(path).startswith(("budget_wrappers/", "agents/")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in found:
                    found[node.name].append(f"{relative(path)}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
