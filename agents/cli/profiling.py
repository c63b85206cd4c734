"""``budget profile``: FLOPs, parameters and latency of a policy on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro
from torch import nn

from agents.cli.arguments import parse, say
from agents.cli.paths import require_file
from agents.cli.profiling_device import measure_device
from agents.cli.profiling_exits import exit_lines, exits_of, profile_of_exits, visit
from agents.loop.agent import OffPolicyAgent
from agents.methods.asymmetric import Asymmetric
from agents.runs.run_config import RunConfig
from agents.studies.names import agent_named
from agents.studies.policies import PolicyOptions, open_policy
from agents.studies.retrofit import trained_actor
from budget_wrappers.deploy.engines import ENGINES, EnginePolicy
from budget_wrappers.errors import BudgetError, ConfigError, MissingExtraError
from budget_wrappers.integrations import sb3_retrofit
from budget_wrappers.metering import ComputeMeter, Energy, Profile, profile
from budget_wrappers.wrappers import SubPolicyAction

SELECTOR = "selector"
PERCENTILES = ("p50_us", "p95_us", "p99_us", "mean_us")


@dataclass(frozen=True)
class ProfileOptions(PolicyOptions):
    """Measure what one action costs on this machine, and whether that fits a control rate.

    A policy that chooses among sub-policies is measured in parts, and judged by a step in which it chooses the dearest.
    One with early exits is measured on the states of some episodes, and judged by its slowest exit.
    One that is a perceptron is measured by each engine that is installed, too: eager torch, numpy, ONNX Runtime.

    Attributes:
        policy: as for eval; without one, --env and --agent profile an untrained agent.
        agent: of an untrained agent: sac, td3, dqn, …; else as for eval.
        net_arch: widths of the hidden layers of an untrained agent.
        hz: control rate to judge by.
        samples: timed actions.
        threads: of torch.
        watts: power of the machine under load, for an estimate of the energy where it cannot be measured.
        out: JSON file for the profile, which another machine can use; those of parts and engines lie beside it under
            their names.
        device_out: JSON file for a fit of the time that a perceptron of any widths takes here, one row by numpy, from
            this environment's observations to its actions: what ``max_latency_us`` of units reads.
    """

    policy: Annotated[Path | None, tyro.conf.Positional] = None
    net_arch: tuple[int, ...] = (256, 256)
    hz: float | None = None
    samples: int = 1000
    threads: int = 1
    watts: float | None = None
    out: Path | None = None
    device_out: Path | None = None


def run(arguments: Sequence[str]) -> int:
    """Profile as ``arguments`` say; return the exit code: 1 where ``hz`` was given and is not kept up with."""
    options = parse(ProfileOptions, arguments, "budget profile", ProfileOptions.__doc__ or "")
    require_file(options.out, "out")
    require_file(options.device_out, "device-out")
    policy, env, name = open_policy(options) if options.policy else untrained(options)
    exits = exits_of(policy)
    try:
        observation, _ = env.reset(seed=options.seed)
        states = None if exits is None else visit(policy, exits, env, options.seed)
    finally:
        env.close()
    parts = parts_of(policy, env)
    if exits is not None and states is not None:
        measured, files = profile_of_exits(policy, exits, states, options, name)
        lines = profile_lines(replace(files["visited"], hz=None, fits=None)) + exit_lines(states, measured, files)
        lines += verdict(measured)
    elif parts is None:
        measured, files = measure(policy, observation, options, name), by_engine(policy, observation, options, name)
        lines = profile_lines(measured) + engine_lines(files)
    else:
        files = {part: measure(one, observation, options, f"{part} of {name}") for part, one in parts.all().items()}
        measured, lines = together(files, parts.durations, options.hz, name)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        measured.save(options.out)
        for part, one in files.items():
            one.save(options.out.with_name(f"{options.out.stem}.{part}{options.out.suffix}"))
    if options.device_out is not None:
        lines = [*lines, f"  device           {fitted(policy, observation, options, options.device_out)}"]
    for line in lines:
        say(line)
    return 1 if measured.fits is False else 0


def fitted(policy: Any, observation: Any, options: ProfileOptions, path: Path) -> str:
    """Measure perceptrons of many widths, write the fit and return a line that says what it is.

    Raises:
        ConfigError: the observations are not vectors, or the policy has no network of its own.
    """
    outputs = outputs_of(policy)
    if np.ndim(observation) != 1 or outputs is None:
        raise ConfigError(
            f"device-out={str(path)!r} with {type(policy).__name__}: expected an agent that acts on "
            "vectors; profile one, such as --agent sac --env HalfCheetah-v5"
        )
    return measure_device(len(observation), outputs, path, options.samples, options.threads)[1]


def outputs_of(policy: Any) -> int | None:
    """Return how many numbers the last layer of what acts has, ``None`` where the policy has no network."""
    actor = getattr(policy, "actor", None)
    linears = [part for part in actor.modules() if isinstance(part, nn.Linear)] if actor is not None else []
    return linears[-1].out_features if linears else None


def measure(policy: Any, observation: Any, options: ProfileOptions, name: str) -> Profile:
    """Return the profile of one policy or part."""
    measured = profile(
        policy,
        observation,
        options.hz,
        samples=options.samples,
        threads=options.threads,
        watts=options.watts,
        name=name,
    )
    # A sub-policy declares its FLOPs, so that its network is not looked for.
    network = getattr(getattr(policy, "agent", None), "actor", None)
    if measured.parameters is None and isinstance(network, nn.Module):
        return replace(measured, parameters=sum(parameter.numel() for parameter in network.parameters()))
    return measured


# ---- engines --------------------------------------------------------------------------------------------------------


def by_engine(policy: Any, observation: Any, options: ProfileOptions, name: str) -> dict[str, Profile]:
    """Return the profile of ``policy`` as each engine evaluates it; none where it is no single perceptron."""
    try:
        ours = isinstance(policy, OffPolicyAgent)
        actor = trained_actor(policy) if ours else sb3_retrofit.trained_actor(getattr(policy, "model", policy))
    except BudgetError:
        return {}
    files = {}
    for engine in ENGINES:
        try:
            made = EnginePolicy(actor, engine)
        except MissingExtraError:
            continue
        files[engine] = measure(made, observation, options, f"{name}, {engine}")
    return files


def engine_lines(files: dict[str, Profile]) -> list[str]:
    """Return the lines about engines that the terminal shows."""
    lines = ["  by engine         (deterministic actions; µs median, p95, p99)"] if files else []
    for engine, measured in files.items():
        latency = measured.latency
        verdict_here = "" if measured.fits is None else "   fits" if measured.fits else "   does not fit"
        times = f"{latency.p50_us:>12,.1f} {latency.p95_us:>10,.1f} {latency.p99_us:>10,.1f}"
        lines.append(f"  {engine:<16}{times}{verdict_here}")
    return lines


# ---- policies that choose among sub-policies ------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """What runs where a policy chooses among sub-policies.

    Attributes:
        selector: chooses, and then not for some steps.
        sub_policies: by name; the chosen one acts in every step.
        durations: steps that a choice can last, ascending.
    """

    selector: Any
    sub_policies: dict[str, Any]
    durations: tuple[int, ...]

    def all(self) -> dict[str, Any]:
        """Return every part by name, the selector first."""
        return {SELECTOR: self.selector, **self.sub_policies}


def parts_of(policy: Any, env: gym.Env) -> Parts | None:
    """Return the parts of a policy that chooses among sub-policies, ``None`` for one that acts alone."""
    if isinstance(policy, Asymmetric):
        return Parts(policy.master, {part.name: part for part in policy.sub_policies}, policy.options.durations)
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, SubPolicyAction):
            return Parts(policy, {part.name: part for part in layer.sub_policies}, layer.durations)
        layer = layer.env
    return None


def together(
    parts: dict[str, Profile], durations: tuple[int, ...], hz: float | None, name: str
) -> tuple[Profile, list[str]]:
    """Return the profile of a control step that decides, at its dearest, and the lines that the terminal shows.

    Args:
        parts: profiles by name, the selector first.
        durations: steps that a choice can last, ascending.
        hz: control rate to judge by.
        name: of the whole.
    """
    selector, subs = parts[SELECTOR], {part: one for part, one in parts.items() if part != SELECTOR}
    slowest = max(subs, key=lambda part: subs[part].latency.p99_us)
    dearest = max(subs, key=lambda part: subs[part].flops)
    slow, sizes = subs[slowest], [one.parameters for one in parts.values()]
    times = {key: getattr(selector.latency, key) + getattr(slow.latency, key) for key in PERCENTILES}
    flops = selector.flops + subs[dearest].flops
    whole = replace(
        selector,
        policy=name,
        flops=flops,
        parameters=None if None in sizes else sum(size or 0 for size in sizes),
        latency=replace(selector.latency, **times),
        energy=sum_of(selector.energy, slow.energy),
        hz=None,
        fits=None,
    )
    whole = whole if hz is None else whole.at(hz)
    lines = [line for one in parts.values() for line in profile_lines(replace(one, hz=None, fits=None))]
    lines += profile_lines(replace(whole, policy=f"{name}: a step that decides, at its dearest", hz=None, fits=None))
    lines.append(
        f"  FLOPs are those of the {SELECTOR} and of {dearest}, latencies of the {SELECTOR} and {slowest} added"
    )
    for hold in durations:
        lines.append(f"  FLOPs per step on average, with a choice every {hold} steps:")
        lines += [f"    {part:<16}{one.flops + selector.flops / hold:>14,.1f}" for part, one in subs.items()]
    return whole, lines + verdict(whole)


def sum_of(one: Energy, other: Energy) -> Energy:
    """Return the energy of two calls, one after the other; unknown where one is, or where their sources differ."""
    if one.joules is None or other.joules is None or one.source != other.source:
        return replace(one, joules=None, source="unavailable")
    return replace(one, joules=one.joules + other.joules)


def untrained(options: ProfileOptions) -> tuple[Any, gym.Env, str]:
    """Return a new agent, its environment and a name for both.

    Raises:
        ConfigError: no environment or agent is named.
    """
    if options.env is None or options.agent is None:
        raise ConfigError(
            f"policy=None, env={options.env!r}, agent={options.agent!r}: expected a run's folder, or both an "
            "environment and an agent; pass --env HalfCheetah-v5 --agent sac"
        )
    meter = ComputeMeter()
    env = RunConfig(options.env).make_env(meter)
    agent = agent_named(options.agent)(env, meter=meter, net_arch=options.net_arch, buffer_size=1_000)
    return agent, env, f"untrained {type(agent).__name__} in {options.env}"


def profile_lines(measured: Profile) -> list[str]:
    """Return the lines that the terminal shows."""
    latency, energy = measured.latency, measured.energy
    lines = [
        measured.policy,
        f"  FLOPs per action  {measured.flops:>12,}   ({measured.convention} convention)",
        f"  parameters        {'unknown' if measured.parameters is None else f'{measured.parameters:,}':>12}",
        f"  latency           {latency.p50_us:>12,.1f} µs median, {latency.p95_us:,.1f} p95, {latency.p99_us:,.1f} p99",
        f"  energy            {energy_text(energy):>12}",
        f"  machine           {measured.machine.get('processor', '')}, {measured.device}",
    ]
    return lines + verdict(measured)


def verdict(measured: Profile) -> list[str]:
    """Return the line about the control rate, where one was asked about."""
    if measured.fits is None or measured.hz is None:
        return []
    judgement = "fits" if measured.fits else "does not fit"
    return [f"  at {measured.hz:g} Hz: {judgement} ({1e6 / measured.hz:,.0f} µs a period, judged by p99)"]


def energy_text(energy: Energy) -> str:
    """Return the energy of an action with its source."""
    return energy.source if energy.joules is None else f"{1e6 * energy.joules:,.1f} µJ ({energy.source})"
