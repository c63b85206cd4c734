"""Saved policies as the sub-policies of a master: what ``--sub-policies`` names.

A reference is a run's folder, a checkpoint, or (trusted) a Stable-Baselines3 zip. It stands in a run's configuration as
plain text, so that ``eval`` and ``play`` open the same ones; whether to trust a zip is said anew each time.
"""

import zipfile
from pathlib import Path

from agents.cli.names import agent_called
from agents.common.checkpoint import load_agent, read_header
from agents.common.log import CHECKPOINT
from budget_wrappers.errors import CheckpointError
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
    """Return the policy at a path as a sub-policy under the name of its file or folder.

    Raises:
        CheckpointError: no file, or one that holds no policy.
        UntrustedFileError: a zip without trust.
    """
    given = Path(reference)
    path = given / CHECKPOINT if given.is_dir() else given
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: expected a run's folder or a checkpoint; check --sub-policies")
    if zipfile.is_zipfile(path):
        return as_sub_policy(load(path, trust=_trust, device="cpu"), given.stem)
    agent_class = agent_called(read_header(path)["agent"], str(path))
    # A meter of its own: the wrapper charges what the sub-policy declares.
    agent = load_agent(agent_class, path, None, ComputeMeter(), replay=False)
    return AgentPolicy(agent, agent.flops_per_action, given.stem)
