"""``budget profile``: FLOPs, parameters and latency of a policy on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro

from agents.cli.arguments import parse, say
from agents.cli.names import agent_named
from agents.cli.policies import PolicyOptions, open_policy
from agents.common.run import RunConfig
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter, Energy, Profile, profile


@dataclass(frozen=True)
class ProfileOptions(PolicyOptions):
    """Measure what one action costs on this machine, and whether that fits a control rate.

    Attributes:
        policy: as for eval; without one, --env and --agent profile an untrained agent.
        agent: of an untrained agent: sac, td3, dqn, …; else as for eval.
        net_arch: widths of the hidden layers of an untrained agent.
        hz: control rate to judge by.
        samples: timed actions.
        threads: of torch.
        watts: power of the machine under load, for an estimate of the energy where it cannot be measured.
        out: JSON file for the profile, which another machine can use.
    """

    policy: Annotated[Path | None, tyro.conf.Positional] = None
    net_arch: tuple[int, ...] = (256, 256)
    hz: float | None = None
    samples: int = 1000
    threads: int = 1
    watts: float | None = None
    out: Path | None = None


def run(arguments: Sequence[str]) -> int:
    """Profile as ``arguments`` say; return the exit code: 1 where ``hz`` was given and is not kept up with."""
    options = parse(ProfileOptions, arguments, "budget profile", ProfileOptions.__doc__ or "")
    policy, env, name = open_policy(options) if options.policy else untrained(options)
    try:
        observation, _ = env.reset(seed=options.seed)
    finally:
        env.close()
    measured = profile(
        policy,
        observation,
        options.hz,
        samples=options.samples,
        threads=options.threads,
        watts=options.watts,
        name=name,
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        measured.save(options.out)
    for line in table(measured):
        say(line)
    return 1 if measured.fits is False else 0


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


def table(measured: Profile) -> list[str]:
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
    if measured.fits is not None:
        verdict = "fits" if measured.fits else "does not fit"
        lines.append(f"  at {measured.hz:g} Hz: {verdict} ({1e6 / measured.hz:,.0f} µs a period, judged by p99)")
    return lines


def energy_text(energy: Energy) -> str:
    """Return the energy of an action with its source."""
    return energy.source if energy.joules is None else f"{1e6 * energy.joules:,.1f} µJ ({energy.source})"
