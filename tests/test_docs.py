"""README and documentation are executed; CONTRIBUTING.md tells writers what each fence does."""

import ast
import configparser
import functools
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
TAGS = {"python": {"continues", "compile-only"}, "bash": set()}
SECONDS = 120


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    tags: frozenset[str]
    body: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(text: str, page: str) -> list[Block]:
    """Return the fenced blocks of ``text``; a block that continues holds those above it as well."""
    found: list[Block] = []
    for match in FENCE.finditer(text):
        language, *tags = match["info"].split()
        body = match["body"]
        if language == "python" and "continues" in tags:
            before = [block for block in found if block.language == "python"]
            if not before:
                raise ValueError(f"{page}: a block continues, but none stands above it")
            body = before[-1].body + body
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, frozenset(tags), body))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page.read_text(), page.relative_to(ROOT).as_posix())]


def of_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def run_python(source: str, folder: Path) -> None:
    """Run ``source`` as a program of its own in ``folder``."""
    program = folder / "block.py"
    program.write_text(source)
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imports_of(source: str) -> str:
    """Return the top-level import statements of ``source``, after compiling all of it."""
    compile(source, "block", "exec")
    return "\n".join(
        ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)
    )


@pytest.mark.parametrize("block", of_language("python"), ids=str)
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    run_python(imports_of(block.body) if "compile-only" in block.tags else block.body, tmp_path)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in TAGS], ids=str)
def test_tags_are_those_that_contributing_explains(block: Block) -> None:
    assert block.tags <= TAGS[block.language]


@pytest.mark.parametrize("block", of_language("bash"), ids=str)
def test_bash_block_names_only_what_exists(block: Block) -> None:
    problems = [problem for line in commands(block.body) for problem in problems_of(line)]
    assert problems == []


def commands(body: str) -> list[list[str]]:
    """Return the words of each command of a block; continued lines are one, comments and prompts are none."""
    lines = body.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]


def problems_of(words: list[str]) -> list[str]:
    """Return what is wrong with one command, as far as can be told without running it."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words:
        case ["budget", command, *rest]:
            return unknown_options(command, rest)
        case ["make", *rest]:
            targets = [word for word in rest if "=" not in word]
            return [
                f"make has no target {target}" for target in targets if not re.search(rf"^{target}:", makefile(), re.M)
            ]
        case ["python", "-m", module, *_] if module.split(".")[0] in ("benchmarks", "agents", "budget_wrappers"):
            path = ROOT / module.replace(".", "/")
            there = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
            return [] if there else [f"no module {module}"]
        case ["python", file, *_] if file.endswith(".py"):
            return [] if (ROOT / file).is_file() else [f"no file {file}"]
        case ["pip", "install", *rest]:
            asked = {extra for word in rest for names in re.findall(r"\[(.*?)\]", word) for extra in names.split(",")}
            return [f"no extra {extra}" for extra in sorted(asked - extras())]
    return []


def unknown_options(command: str, words: list[str]) -> list[str]:
    status, text = help_of(command)
    if status != 0:
        return [f"budget {command} --help fails: {text[-300:]}"]
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    return [f"budget {command} has no {option}" for option in sorted(options) if option not in text]


@functools.cache
def help_of(command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from agents.cli import main; sys.exit(main())", command, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@functools.cache
def makefile() -> str:
    return (ROOT / "Makefile").read_text()


@functools.cache
def extras() -> frozenset[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return frozenset(config["options.extras_require"])


# The rules themselves, on pages made here: an empty list of blocks would pass everything above.

PAGE = """
```python
a = 1
```
text
```python continues
b = a + 1
```
```bash
make test
```
"""


def test_a_block_that_continues_holds_those_above_it() -> None:
    first, second, third = blocks_of(PAGE, "page.md")
    assert (first.body, second.body, third.body) == ("a = 1\n", "a = 1\nb = a + 1\n", "make test\n")
    assert (first.line, second.line) == (2, 6)


def test_a_continuation_of_nothing_raises() -> None:
    with pytest.raises(ValueError, match="none stands above"):
        blocks_of("```python continues\nb = 1\n```\n", "page.md")


def test_a_failing_block_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_python("1 / 0", tmp_path)


def test_imports_are_all_that_a_compiled_block_runs() -> None:
    assert imports_of("import json\nfrom os import path\nraise SystemExit(1)") == "import json\nfrom os import path"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("make test", None),
        ("make tset", "make has no target tset"),
        ("OMP_NUM_THREADS=1 make test ARGS=-x", None),
        ("pip install -e '.[sb3,minari]'", None),
        ("pip install budget-wrappers[sb4]", "no extra sb4"),
        ("python -m benchmarks.nothing", "no module benchmarks.nothing"),
        ("python examples/nothing.py", "no file examples/nothing.py"),
        ("git clone somewhere", None),
    ],
)
def test_a_command_that_cannot_work_is_found(line: str, problem: str | None) -> None:
    (words,) = commands(line)
    assert problems_of(words) == ([] if problem is None else [problem])


def test_continued_lines_are_one_command() -> None:
    assert commands("$ budget train \\\n  --seed 1  # why\n# a comment\n") == [["budget", "train", "--seed", "1"]]
