"""Every example runs as a reader would run it, and says what it promises."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROMISES = {
    "wrap_environment.py": r"flops_per_step: 384\.0",
    "stable_baselines3_agent.py": r"(?=.*'small': '[\d,]+')(?=.*'large': '[\d,]+').*'q_net': '[\d,]+'",
    "compare_tradeoff.py": r"sac:16,16[\s\S]*picture: .*tradeoff\.png",
    "d3rlpy_offline.py": r"learning [\d,]+ FLOPs[\s\S]*\n\{'q_funcs': '[\d,]+', 'cheap': '[\d,]+', 'dear': '[\d,]+'\}",
    "rllib_agent.py": r"acting [\d,]+ FLOPs, learning [\d,]+ FLOPs[\s\S]*\n10 steps within[\s\S]*'ppo', flops=2432",
    "cleanrl_sac.py": r"step 400: return -\d+ \(-\d+ penalised\)\nacting 2,649,600 FLOPs, learning [\d,]+ FLOPs",
    "cleanrl_dqn_pruned.py": r"at first 10934 parameters[\s\S]*learning\n[\s\S]*at last (\d{3}|1000) parameters: Q",
    "prune_sb3.py": r"SAC: 90\.0% of the weights are 0, 9\d\.\d%[\s\S]*DQN: 90\.0%.* of 8,960 FLOPs of an action",
    "skrl_agent.py": r"acting 2,176,000 FLOPs[\s\S]*(?=.*'sac': '[\d,]+')(?=.*'rest': '[\d,]+').*'q_network': '[\d,]+'",
    "tianshou_agent.py": r"acting [\d,]+ FLOPs[\s\S]*(?=.*'sac': '[\d,]+')(?=.*'rest': '[\d,]+').*'model': '[\d,]+'",
    "torchrl_policy.py": r"acting [\d,]+ FLOPs, learning [\d,]+ FLOPs[\s\S]*\n2432 FLOPs a step in \d+ steps",
}
# What an example imports, and what has to be there for it: RLlib needs more than Ray.
LIBRARIES = {name: (name,) for name in ("stable_baselines3", "tianshou", "skrl", "torchrl", "d3rlpy")}
LIBRARIES["ray"] = ("ray", "tree", "lz4", "ormsgpack")


def test_every_example_is_promised_something() -> None:
    assert {path.name for path in EXAMPLES} == set(PROMISES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    imported = [name for name in LIBRARIES if re.search(rf"^(import|from) {name}\b", path.read_text(), re.MULTILINE)]
    # Not imported here: some libraries warn when they are, which is an error in this process.
    missing = [need for name in imported for need in LIBRARIES[name] if find_spec(need) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
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
