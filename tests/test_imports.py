"""Importing is cheap, and loads nothing that the user did not ask for."""

import json
import subprocess
import sys
import textwrap

# What extras install, and every other RL library that an integration may speak to.
OPTIONAL = {
    "stable_baselines3", "sb3_contrib", "sbx", "jax", "Box2D", "ale_py", "cv2", "gymnasium_robotics", "dm_control",
    "shimmy", "minari", "h5py", "onnx", "onnxruntime", "onnxscript", "ray", "tianshou", "torchrl", "tensordict", "skrl",
    "d3rlpy", "optuna", "envpool", "supersuit", "minatar", "pandas", "seaborn", "pytest",
}  # fmt: skip
# Core, but slow to import: loaded by what needs them.
SLOW = {"matplotlib", "tensorboard", "cvxpy", "pettingzoo", "tyro", "mujoco", "scipy"}
LIMIT_S = 0.3


def after(program: str) -> dict[str, object]:
    """Run ``program`` in a fresh interpreter; return what it puts into ``result`` and the modules it loaded."""
    report = (
        "import json, sys\nprint(json.dumps({**result, 'modules': sorted({m.partition('.')[0] for m in sys.modules})}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"result = {{}}\n{textwrap.dedent(program)}\n{report}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_packages_loads_nothing_else() -> None:
    modules = set(after("import budget_wrappers, agents")["modules"])
    assert modules & (OPTIONAL | SLOW | {"torch", "numpy", "gymnasium"}) == set()


def test_import_adds_little_to_torch() -> None:
    # CPU seconds, so that a busy machine does not matter; measured: about a millisecond.
    seconds = after("""
        import time, torch
        start = time.process_time()
        import budget_wrappers
        result["seconds"] = time.process_time() - start
    """)["seconds"]
    assert seconds < LIMIT_S


def test_metering_and_wrappers_load_no_optional_dependency() -> None:
    modules = set(after("""
        import budget_wrappers
        for name in budget_wrappers.__all__:
            getattr(budget_wrappers, name)
    """)["modules"])  # fmt: skip
    assert modules & (OPTIONAL | SLOW) == set()


def test_no_module_loads_an_optional_dependency_when_imported() -> None:
    modules = set(after("""
        import importlib, pkgutil, agents, budget_wrappers
        for package in (budget_wrappers, agents):
            for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
                # A __main__ is a program: importing it runs it.
                if not module.name.endswith(".__main__"):
                    importlib.import_module(module.name)
    """)["modules"])  # fmt: skip
    assert modules & OPTIONAL == set()
