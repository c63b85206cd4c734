"""Adapters around acting: what makes a policy a sub-policy with a cost."""

from budget_wrappers.policies.adapters import AgentPolicy, FunctionPolicy
from budget_wrappers.policies.exits import ExitPolicy
from budget_wrappers.policies.module import ModulePolicy
from budget_wrappers.policies.options import SubPolicies, load_sub_policy, register_loader, register_sub_policy

__all__ = [
    "AgentPolicy",
    "ExitPolicy",
    "FunctionPolicy",
    "ModulePolicy",
    "SubPolicies",
    "load_sub_policy",
    "register_loader",
    "register_sub_policy",
]
