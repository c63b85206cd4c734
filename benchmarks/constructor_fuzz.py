"""Fuzz of constructors: one or two arguments are nonsense, and what is raised has to be a named error.

Each call takes a public constructor or function, arguments that are right, and puts nonsense in the place of one or two
of them. What may come of it: an error of the project, a TypeError, a ValueError; or the call is accepted, and then it
is one of those that ``benchmarks.constructor_sense`` lists with a reason. Anything else is a fault: it is listed in the
result, and the exit status is 1.

    python -m benchmarks.constructor_fuzz                    # 19,000 calls
    python -m benchmarks.constructor_fuzz --calls 500 --only SAC DQN
"""

import argparse
import json
import signal
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.card import command, machine, store
from benchmarks.constructor_sense import why_sensible
from benchmarks.constructor_targets import targets
from budget_wrappers.errors import BudgetError

RESULTS = Path(__file__).parent / "results" / "fuzz"
NONSENSE: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "0": lambda: 0,
    "5": lambda: 5,
    "-1": lambda: -1,
    "0.5": lambda: 0.5,
    "-0.5": lambda: -0.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: float("-inf"),
    "1e300": lambda: 1e300,
    "2**63": lambda: 2**63,
    "2**70": lambda: 2**70,
    "10**18": lambda: 10**18,
    "10**400": lambda: 10**400,
    "1j": lambda: 1j,
    "'x'": lambda: "x",
    "''": lambda: "",
    "'7'": lambda: "7",
    "b'x'": lambda: b"x",
    "[]": lambda: [],
    "()": lambda: (),
    "{}": lambda: {},
    "{'a': 1}": lambda: {"a": 1},
    "[1, 'a']": lambda: [1, "a"],
    "[nan]": lambda: [float("nan")],
    "[[1, 2], [3]]": lambda: [[1, 2], [3]],
    "(0, 0)": lambda: (0, 0),
    "(-1, 2)": lambda: (-1, 2),
    "{1, 2}": lambda: {1, 2},
    "object()": object,
    "int": lambda: int,
    "lambda": lambda: lambda *args: None,
    "...": lambda: ...,
    "np.nan": lambda: np.float64("nan"),
    "np.uint64(2**63)": lambda: np.uint64(2**63),
    "np.array([nan])": lambda: np.array([np.nan]),
    "np.zeros((2, 2))": lambda: np.zeros((2, 2)),
    "np.array('x')": lambda: np.array("x"),
    "np.array([None])": lambda: np.array([None]),
    "torch.zeros(2)": lambda: torch.zeros(2),
    "torch.tensor(nan)": lambda: torch.tensor(float("nan")),
    "nn.Linear(2, 2)": lambda: nn.Linear(2, 2),
    "nn.Identity()": nn.Identity,
    "Exception()": lambda: Exception("x"),
}


class TooLongError(Exception):
    """A call took longer than it may."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TooLongError in the block after ``seconds``."""

    def alarm(*_: object) -> None:
        raise TooLongError(f"{seconds} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def kind_of(error: Exception) -> str:
    """Return how an error counts: the project's, TypeError and ValueError by name, or the name of a fault."""
    if isinstance(error, BudgetError):
        return "project"
    # Subclasses of TypeError from NumPy, such as UFuncTypeError, say nothing of the argument: faults.
    return type(error).__name__


def run(calls: int, seed: int, only: list[str], seconds: int) -> dict[str, Any]:
    """Return what ``calls`` calls came to, equally many of each target."""
    rng = np.random.default_rng(seed)
    known = {name: target for name, target in targets().items() if not only or name in only}
    counts: Counter[str] = Counter()
    faults: list[dict[str, str]] = []
    accepted: dict[str, Counter[str]] = defaultdict(Counter)
    sensible: dict[str, dict[str, str]] = defaultdict(dict)
    labels = list(NONSENSE)
    for place in range(calls):
        name = list(known)[place % len(known)]
        call, right = known[name]
        arguments = right()
        wrong = rng.choice(sorted(arguments), size=min(int(rng.integers(1, 3)), len(arguments)), replace=False)
        chosen = {str(key): labels[int(rng.integers(len(labels)))] for key in wrong}
        arguments |= {key: NONSENSE[label]() for key, label in chosen.items()}
        outcome, message = "accepted", ""
        try:  # which errors there are is the question: all are caught
            with within(seconds):
                call(**arguments)
        except Exception as error:  # noqa: BLE001
            outcome, message = kind_of(error), f"{type(error).__name__}: {error}"
        counts[outcome] += 1
        if outcome == "accepted":
            reasons = {key: why_sensible(name, key, label) for key, label in chosen.items()}
            for key, reason in reasons.items():
                if reason is None:
                    accepted[f"{name}({key}=)"][chosen[key]] += 1
                else:
                    sensible[f"{name}({key}=)"][chosen[key]] = reason
        elif outcome not in ("project", "TypeError", "ValueError"):
            faults.append({"target": name, "arguments": str(chosen), "error": message[:300]})
    return {
        "calls": calls,
        "seed": seed,
        "targets": len(known),
        "counts": dict(counts.most_common()),
        "faults": faults,
        "accepted": {key: dict(sorted(values.items())) for key, values in sorted(sensible.items())},
        "accepted_without_reason": {key: dict(values) for key, values in sorted(accepted.items())},
    }


def main() -> int:
    """Run the fuzz and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=19_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=20, help="that one call may take")
    parser.add_argument("--only", nargs="*", default=[], metavar="TARGET", help="these targets only")
    parser.add_argument("--out", type=Path, default=RESULTS / "constructors.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    result = run(options.calls, options.seed, options.only, options.seconds)
    result |= {"seconds": round(time.perf_counter() - began, 1), "command": command(), "machine": machine()}
    store(options.out, result)
    print(json.dumps({key: result[key] for key in ("calls", "targets", "counts", "seconds")}, indent=1))
    bad = len(result["faults"]) + sum(map(len, result["accepted_without_reason"].values()))
    print(f"{len(result['faults'])} faults, {bad - len(result['faults'])} kinds of accepted nonsense; {options.out}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
