"""Upgrades along upper concave hulls, bought in the order of value per cost: the relaxed multiple-choice knapsack.

Each of ``B`` buyers (states, agents) has ``K`` choices with values and costs and starts from its cheapest. The choices
worth having lie on the upper concave hull of value over cost, and so do all mixtures of them; along it each further
unit of cost buys less. Buying every hull's upgrades in the order of their slope until the money is spent is therefore
exact. Source: Sinha and Zoltners (1979), "The Multiple-Choice Knapsack Problem".
"""

import math

import torch
from torch import Tensor


def upgrades(values: Tensor, costs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each buyer's upgrades gain per unit of cost and what they cost, and the chain that they lead along.

    Args:
        values: ``(B, K)``, finite.
        costs: ``(K,)``, or ``(B, K)`` where buyers differ, finite; of the type and device of ``values``.

    Returns:
        Gain and cost, ``(K − 1, B)`` each, gain falling along the first axis and 0 where there is no upgrade left; the
        indices of the chain, ``(K, B)``, from the best of the cheapest choices on.
    """
    value = values.t()
    cost = (costs if costs.dim() == 2 else costs[None]).t().expand_as(value)
    cheapest = cost == cost.amin(0)
    now = value.masked_fill(~cheapest, -math.inf).argmax(0, keepdim=True)
    gains, extras, chain = [], [], [now]
    ceiling = torch.full_like(value[:1], math.inf)
    for _ in range(len(value) - 1):
        further = cost - cost.gather(0, now)
        slope = ((value - value.gather(0, now)) / further).masked_fill_(further <= 0, -math.inf)
        best = slope.amax(0, keepdim=True)
        # The farthest of equal slopes: the chain stays short, and slopes along it fall.
        reached = further.masked_fill(slope < best, -math.inf).argmax(0, keepdim=True)
        better = best > 0
        gains.append(torch.minimum(best, ceiling).masked_fill(~better, 0.0))
        extras.append(further.gather(0, reached).masked_fill_(~better, 0.0))
        now, ceiling = torch.where(better, reached, now), gains[-1]
        chain.append(now)
    if not gains:
        return value[:0], value[:0], torch.cat(chain)
    return torch.cat(gains), torch.cat(extras), torch.cat(chain)


def buy(values: Tensor, costs: Tensor, money: float) -> tuple[Tensor, Tensor]:
    """Return what every buyer takes when ``money`` is spent on the best upgrades of all, and what more would buy.

    Args:
        values: ``(B, K)``, finite.
        costs: ``(K,)`` or ``(B, K)``, finite.
        money: beyond what everybody's cheapest choice costs, >= 0; infinite where all can have what they like best.

    Returns:
        α, ``(B, K)``, of which one row at most is mixed, of two choices; and the multiplier μ ≥ 0, a scalar: the value
        that one more unit of money would buy, 0 where some is left.
    """
    gain, extra, chain = upgrades(values, costs)
    buyers = len(values)
    order = torch.argsort(gain.flatten(), descending=True, stable=True)
    order = order[: int((gain > 0).sum())]
    spent = extra.flatten()[order].double().cumsum(0)
    whole = int(torch.searchsorted(spent, money, right=True))
    bought = torch.bincount(order[:whole] % buyers, minlength=buyers)
    alpha = torch.zeros_like(values)
    alpha.scatter_(1, chain.gather(0, bought[None]).t(), 1.0)
    if whole == len(order):
        return alpha, values.new_zeros(())
    step, buyer = divmod(int(order[whole]), buyers)
    share = (money - (float(spent[whole - 1]) if whole else 0.0)) / float(extra[step, buyer])
    alpha[buyer, chain[step, buyer]] -= share
    alpha[buyer, chain[step + 1, buyer]] += share
    return alpha, gain[step, buyer]


__all__ = ["buy", "upgrades"]
