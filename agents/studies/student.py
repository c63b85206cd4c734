"""A plain network taught by a trained policy on the states that its exits were taught on: what retrofits must beat."""

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import nn

from budget_wrappers.deploy.engines import EnginePolicy
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies.retrofit import Retrofit, RetrofitConfig, TrainedActor


def taught_student(retrofit: Retrofit, widths: Sequence[int]) -> EnginePolicy:
    """Return a network of ``widths`` that imitates the actor of ``retrofit``, which has imitated before.

    It sees the states of all rounds, for as many gradient steps as all rounds took, by the same loss and schedule.

    Args:
        retrofit: after ``imitate``.
        widths: of the student's hidden layers, at least one.
    """
    actor, config = retrofit.actor, retrofit.config
    net = _network(actor, widths, config)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    updates = config.updates * config.rounds
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    generator = torch.Generator(retrofit.observations.device).manual_seed(config.seed)
    last = len(retrofit.network.exits) - 1
    for _ in range(updates):
        rows = torch.randint(len(retrofit.observations), (config.batch_size,), generator=generator)
        x = retrofit.observations[rows.to(retrofit.observations.device)]
        with torch.no_grad():
            wanted = retrofit.network.at(x, last)
        loss = actor.action_map.difference(net(x)[None], wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    layers = [part for part in net if isinstance(part, nn.Linear)]
    return EnginePolicy(dataclasses.replace(actor, layers=layers, worth=None), "numpy", ComputeMeter())


def _network(actor: TrainedActor, widths: Sequence[int], config: RetrofitConfig) -> nn.Sequential:
    first, last = actor.layers[0], actor.layers[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        between = {"relu": nn.ReLU, "tanh": nn.Tanh}[actor.activation]
        sizes = itertools.pairwise([first.in_features, *widths, last.out_features])
        parts = [part for before, after in sizes for part in (nn.Linear(before, after), between())]
        return nn.Sequential(*parts[:-1]).to(first.weight)
