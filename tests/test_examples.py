"""Every example runs as a reader would run it, and says what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROMISES = {
    "wrap_environment.py": r"flops_per_step: 384\.0",
    "stable_baselines3_agent.py": r"(?=.*'small': '[\d,]+')(?=.*'large': '[\d,]+').*'q_net': '[\d,]+'",
    "compare_tradeoff.py": r"large-only[\s\S]*picture: .*tradeoff\.png",
}


def test_every_example_is_promised_something() -> None:
    assert {path.name for path in EXAMPLES} == set(PROMISES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    if "stable_baselines3" in path.read_text():
        pytest.importorskip("stable_baselines3")
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**environment(), "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PROMISES[path.name], done.stdout), done.stdout


def environment() -> dict[str, str]:
    """Return the environment's variables, with a terminal wide enough for a table."""
    import os

    return {**os.environ, "COLUMNS": "160"}
