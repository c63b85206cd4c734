"""Counting compute: FLOPs of modules, the account that policies charge, and profiles of a policy on a machine."""

from budget_wrappers.metering.counting import CountingMode, count_flops, register_flop_formula
from budget_wrappers.metering.energy import Energy, measure_energy
from budget_wrappers.metering.latency import Latency, measure_latency
from budget_wrappers.metering.meter import ComputeMeter
from budget_wrappers.metering.profiling import Profile, profile
from budget_wrappers.metering.registry import get_meter
from budget_wrappers.metering.totals import Totals
from budget_wrappers.metering.watching import Watch

__all__ = [
    "ComputeMeter",
    "CountingMode",
    "Energy",
    "Latency",
    "Profile",
    "Totals",
    "Watch",
    "count_flops",
    "get_meter",
    "measure_energy",
    "measure_latency",
    "profile",
    "register_flop_formula",
]
