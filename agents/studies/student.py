"""A plain network taught by a trained policy on the states that its exits were taught on: what retrofits must beat."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy, Normalisation
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies.retrofit import CHUNK, Retrofit, RetrofitConfig, TrainedActor
from budget_wrappers.policies.rows import Concatenation


def taught_student(retrofit: Retrofit, widths: Sequence[int]) -> BudgetedExitPolicy:
    """Return a network of ``widths`` that imitates the actor of ``retrofit``, which has imitated before.

    It sees the states of all rounds, for as many gradient steps as all rounds took, by the same loss and schedule. As a
    policy it has one exit, its end, so that its file is what a retrofit's is.

    Args:
        retrofit: after ``imitate``.
        widths: of the student's hidden layers, at least one.
    """
    actor, config = retrofit.actor, retrofit.config
    net = _network(actor, widths, config)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, fused=True)
    updates = config.updates * config.rounds
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    generator = torch.Generator(retrofit.observations.device).manual_seed(config.seed)
    last = len(retrofit.network.exits) - 1
    wanted = torch.cat([retrofit.network.at(x, last) for x in retrofit.observations.split(CHUNK)])
    for _ in range(updates):
        rows = torch.randint(len(retrofit.observations), (config.batch_size,), generator=generator)
        rows = rows.to(retrofit.observations.device)
        said = net(retrofit.observations[rows])
        loss = actor.action_map.difference(said[None], wanted[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return policy_of(_with_one_exit(net, widths, actor.activation), actor, budget=1.0)


def policy_of(network: EarlyExitNetwork, actor: TrainedActor, budget: float) -> BudgetedExitPolicy:
    """Return ``network`` as a policy that observes and acts as ``actor`` does."""
    normalisation = actor.to_array if isinstance(actor.to_array, Normalisation) else None
    concatenation = actor.to_array if isinstance(actor.to_array, Concatenation) else None
    return BudgetedExitPolicy(network, actor.action_map, budget, normalisation, concatenation=concatenation)


def _with_one_exit(net: nn.Sequential, widths: Sequence[int], activation: Any) -> EarlyExitNetwork:
    layers = [part for part in net if isinstance(part, nn.Linear)]
    inputs, outputs = layers[0].in_features, layers[-1].out_features
    made = EarlyExitNetwork(inputs, outputs, tuple(widths), (len(widths),), activation).to(layers[0].weight)
    own = [part for part in made.modules() if isinstance(part, nn.Linear)]
    for layer, taught in zip(own, layers, strict=True):
        layer.load_state_dict(taught.state_dict())
    return made


def _network(actor: TrainedActor, widths: Sequence[int], config: RetrofitConfig) -> nn.Sequential:
    first, last = actor.layers[0], actor.layers[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        between = {"relu": nn.ReLU, "tanh": nn.Tanh}[actor.activation]
        sizes = itertools.pairwise([first.in_features, *widths, last.out_features])
        parts = [part for before, after in sizes for part in (nn.Linear(before, after), between())]
        return nn.Sequential(*parts[:-1]).to(first.weight)
