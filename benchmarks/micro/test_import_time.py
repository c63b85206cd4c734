"""What importing the package adds to importing torch: fresh interpreters, the peer in the same run."""

import subprocess
import sys

import pytest

PROGRAMS = {
    "torch": "import torch",
    "torch, then budget_wrappers": "import torch, budget_wrappers",
    "torch, then every public name": "import torch, budget_wrappers as b; [getattr(b, name) for name in b.__all__]",
    "gymnasium beside torch": "import torch, gymnasium",
}


@pytest.mark.benchmark(group="import")
@pytest.mark.parametrize("program", PROGRAMS)
def test_import(benchmark, program: str) -> None:
    benchmark.pedantic(
        subprocess.run,
        args=([sys.executable, "-c", PROGRAMS[program]],),
        kwargs={"check": True},
        rounds=5,
        warmup_rounds=1,
    )
