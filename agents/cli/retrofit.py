"""``budget retrofit``: a trained policy gets early exits and keeps a budget; what was trained is not changed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agents.cli.arguments import parse, say
from agents.cli.paths import require_folder
from agents.cli.report import report
from agents.studies.policies import PolicyOptions, open_policy, setup_of
from budget_wrappers.policies.retrofit import RetrofitConfig


@dataclass(frozen=True)
class RetrofitOptions(PolicyOptions):
    """Add early exits to a trained policy, teach their gates budgets, and show what each buys.

    Exits are fitted by imitation on the policy's own rollouts, gates by a linear program over what its critic says, or
    without one (PPO, A2C) over how little an exit differs from the policy. Stable-Baselines3's SAC, TD3, DDPG, DQN, PPO
    and A2C zips (with --trust), and this package's SAC, TD3, CQL and DQN.

    Attributes:
        budget: mean costs of acting at most, one policy each: 0 for the first exit only, 1 for the last wherever it is
            worth more; a critic may think more of an exit before it.
        exit_after: hidden layers before each exit, ascending, 0 for one on the observation, the last for the policy's
            own output; by default one after every layer.
        steps: environment steps of each round of imitation.
        rounds: of imitation; from the second on exits drive, so that they learn where they lead.
        updates: gradient steps of a round, and of the gates for a budget.
        program: batch_budget moves budget to the states that need it, budget gives every state the same.
        episodes: of each evaluation.
        folder: for policies, table and picture; by default runs/<time>-retrofit.
        label: a name that the rows of table and picture begin with.
    """

    budget: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    exit_after: tuple[int, ...] = RetrofitConfig.exit_after
    steps: int = RetrofitConfig.steps
    rounds: int = RetrofitConfig.rounds
    updates: int = RetrofitConfig.updates
    program: Literal["batch_budget", "budget"] = "batch_budget"
    episodes: int = 20
    folder: Annotated[Path | None, tyro.conf.arg(aliases=["--run"])] = None
    label: str | None = None


def run(arguments: Sequence[str]) -> int:
    """Retrofit as ``arguments`` say; return the exit code."""
    options = parse(RetrofitOptions, arguments, "budget retrofit", RetrofitOptions.__doc__ or "")
    require_folder(options.folder, "folder")
    from agents.studies.retrofit import AS_TRAINED, IN_NUMPY, actor_of, run_retrofit

    policy, env, name = open_policy(options)
    env.close()
    setup = setup_of(options)[1]
    actor = actor_of(policy)
    config = RetrofitConfig(
        exit_after=options.exit_after,
        steps=options.steps,
        rounds=options.rounds,
        updates=options.updates,
        program=options.program,
    )
    folder = options.folder or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-retrofit"
    say(f"{name}: adding exits")
    study = run_retrofit(policy, actor, setup, config, options.budget, folder, options.episodes, options.seed, say)
    code = report([folder], labels=[options.label] if options.label else [])
    before, engine = (study.latencies[key].p50_us for key in (AS_TRAINED, IN_NUMPY))
    say(f"An action takes {before:.0f} µs at the median (p50) as trained, {engine:.0f} µs by the numpy engine")
    for budget, file in study.files.items():
        say(f"  {study.latencies[f'{budget:g}'].p50_us:.0f} µs with exits (numpy): {file}")
    first = next(iter(study.files.values()))
    say(f"Exits and gates took {study.seconds:.0f} s. Next: budget eval {first} --env {setup.env}")
    return code
