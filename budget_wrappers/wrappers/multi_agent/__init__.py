"""Wrappers for PettingZoo, under the names of those for single environments.

``multi_agent.parallel`` has them for ``ParallelEnv``, ``multi_agent.aec`` for ``AECEnv``. Each agent has a meter of its
own: agent ``a`` charges ``get_meter(f"policy.{a}")``.
"""

from budget_wrappers.wrappers.multi_agent import aec, parallel
from budget_wrappers.wrappers.multi_agent.accounts import charge_agents

__all__ = ["aec", "charge_agents", "parallel"]
