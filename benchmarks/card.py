"""What every stored number carries: the command, the versions and the machine that made it."""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "stable_baselines3", "sbx-rl", "jax", "minari", "cvxpy", "scipy")
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return the processor, the number of cores, the Python version and the versions of what was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def command() -> str:
    """Return the command line as a reader would type it from the root of the repository."""
    script = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parent.parent
    name = ".".join(script.relative_to(root).with_suffix("").parts) if script.is_relative_to(root) else script.name
    return " ".join(["python -m", name, *sys.argv[1:]])


def store(path: Path, record: dict[str, Any]) -> Path:
    """Write ``record`` with its card to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"command": command(), "machine": machine(), **record}, indent=1) + "\n")
    partial.replace(path)
    return path
