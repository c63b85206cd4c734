"""Which versions made a number, and which machine."""

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("budget-wrappers", "torch", "numpy", "gymnasium", "mujoco", "safetensors", "minari")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of each installed package whose numbers may depend on it."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def machine() -> str:
    """Return the processor and the number of cores, as a text."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
