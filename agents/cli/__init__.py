"""The ``budget`` command: ``train``, ``eval``, ``tradeoff``, ``sweep``, ``retrofit``, ``profile``, ``report`` and more.

Each verb is a module that is imported when it is called, so ``budget --help`` loads neither torch nor Gymnasium.
Exit codes: 0 done, 1 a check failed or trainings were lost with their processes, 2 bad input (one line on standard
error), 128 + the signal's number where one stopped it: 130 by SIGINT (Ctrl-C), 143 by SIGTERM, 129 by SIGHUP.

The first of these signals lets ``train``, ``sizes`` and ``sweep`` save where they can be resumed, and ``tradeoff`` keep
what is finished; other verbs stop. The second signal stops at once, and a third ends the process. ``nohup`` works.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from agents.runs.interrupt import interruptible, status
from budget_wrappers.errors import BudgetError, WorkerLostError
from budget_wrappers.files import is_text

VERBS = {
    "train": ("agents.cli.train", "train an agent or a recipe on an environment; --resume goes on with a run"),
    "eval": ("agents.cli.evaluation", "returns and FLOPs per step of a trained policy, over seeded episodes"),
    "tradeoff": ("agents.cli.tradeoff", "train several methods at several prices of compute: table and picture"),
    "sizes": ("agents.cli.sizes", "find the widths of a small and a large sub-policy: table, and what to train next"),
    "sweep": ("agents.cli.sweep", "random search over an agent's configuration: ranking with intervals"),
    "retrofit": ("agents.cli.retrofit", "add early exits to a trained policy and teach them budgets"),
    "profile": ("agents.cli.profiling", "FLOPs, parameters and latency of a policy; does it fit at --hz?"),
    "report": ("agents.cli.report", "HTML and PNG from run folders"),
    "play": ("agents.cli.play", "watch a trained policy, or film it with --video"),
    "check": ("agents.cli.check", "run the wrapper checks on a wrapper, ours or yours"),
}
LOST, REFUSED, SIGNALLED = 1, 2, 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: without the program's name; by default the process's, which then is this function's alone: signals
            that follow an interrupt end it.
    """
    try:
        with interruptible(command=arguments is None):
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as interrupt:
        sys.stderr.write("\nbudget: interrupted\n")
        code = status(interrupt)
    if arguments is None and code > SIGNALLED:
        # Python takes seconds to take torch apart, which a scheduler may not grant; all files are closed by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(arguments: list[str]) -> int:
    """Run the verb that ``arguments`` begin with and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if arguments[0] == "--version":
        from budget_wrappers import __version__

        sys.stdout.write(f"budget-wrappers {__version__}\n")
        return 0
    strange = next((word for word in arguments if not is_text(word)), None)
    if strange is not None:
        return refuse(
            "budget", f"{strange!a} is no text of UTF-8; expected words that it can hold: give it another name"
        )
    verb, *rest = arguments
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(VERBS)}"
        return refuse("budget", f"unknown verb {verb!r}; {hint}")
    try:
        return importlib.import_module(VERBS[verb][0]).run(rest)
    except WorkerLostError as error:
        return refuse(f"budget {verb}", str(error), LOST)
    except BudgetError as error:
        return refuse(f"budget {verb}", str(error))
    except OSError as error:
        return refuse(f"budget {verb}", f"{error}; expected to be able to read and write there: check path and disk")


def overview() -> str:
    """Return the text of ``budget --help``."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(
        [
            "usage: budget VERB [OPTIONS]",
            "",
            "Meter, limit and learn to spend the compute of reinforcement-learning policies.",
            "",
            *lines,
            "",
            "budget VERB --help lists the options of a verb. train, tradeoff, sizes and sweep take --config FILE.toml,",
            "whose options flags override, and --dry-run, which prints the result in the same format and stops.",
            "Ctrl-C, SIGTERM and SIGHUP let a training save first (exit status 130, 143, 129); twice stops at once.",
            "",
        ]
    )


def refuse(who: str, message: str, code: int = REFUSED) -> int:
    """Write one line to standard error and return ``code``, by default that of bad input."""
    sys.stderr.write(f"{who}: error: {' '.join(message.split())}\n")
    return code
