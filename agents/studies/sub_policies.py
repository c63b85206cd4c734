"""Saved policies as the sub-policies of a master: what ``--sub-policies`` names.

A reference is a run's folder, a checkpoint, or (trusted) a Stable-Baselines3 zip. It stands in a run's configuration as
plain text, so that ``eval`` and ``play`` open the same ones; whether to trust a zip is said anew each time.
"""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from agents.loop.checkpoint import load_agent, read_header
from agents.runs.log import BEST, CHECKPOINT
from agents.studies.names import agent_called
from budget_wrappers.errors import CheckpointError
from budget_wrappers.files import inside
from budget_wrappers.integrations.sb3 import as_sub_policy, load
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import AgentPolicy, register_loader

SCHEME = "file"

_trust = False


def open_sub_policies_with(trust: bool) -> None:
    """Make saved policies known to ``SubPolicyAction`` by their paths.

    Args:
        trust: open zips too, which can run code when they are loaded.
    """
    global _trust
    _trust = trust
    register_loader(SCHEME, _open)


def _open(reference: str) -> AgentPolicy:
    """Return the policy at a path as a sub-policy under its ``name_of``.

    Raises:
        CheckpointError: no file, or one that holds no policy.
        UntrustedFileError: a zip without trust.
    """
    given = Path(reference)
    path = inside(given, CHECKPOINT) if given.is_dir() else given
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: expected a run's folder or a checkpoint; check --sub-policies")
    if zipfile.is_zipfile(path):
        return as_sub_policy(load(path, trust=_trust, device="cpu"), name_of(given))
    agent_class = agent_called(read_header(path)["agent"], str(path))
    # A meter of its own: the wrapper charges what the sub-policy declares.
    agent = load_agent(agent_class, path, None, ComputeMeter(), replay=False)
    return AgentPolicy(agent, agent.flops_per_action, name_of(given), batched=True, convention=agent.meter.convention)


def any_zip(references: Iterable[str]) -> bool:
    """Tell whether one of the paths is that of a zip, which is opened with trust alone."""
    return any(os.path.isfile(path) and zipfile.is_zipfile(path) for path in references)


def name_of(given: Path) -> str:
    """Return what a sub-policy is called: its run's folder, else its file without the suffix."""
    path = Path(os.path.abspath(given))  # "." and ".." have no name of their own; links keep theirs
    if path.is_dir():
        return path.name
    return path.parent.name if path.name in (CHECKPOINT, BEST) else path.stem
