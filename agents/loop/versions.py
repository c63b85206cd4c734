"""Which versions made a number."""

import platform
from functools import cache
from importlib import metadata

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
