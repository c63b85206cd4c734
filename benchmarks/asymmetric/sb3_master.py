"""The study's row with Stable-Baselines3's DQN as the master, unmodified, on the wrapped environment.

    python -m benchmarks.asymmetric.sb3_master run mountain-car --seed 0

The sub-policies are the recipe's and learn as there, once a step of the environment from one replay; who chooses is a
third-party agent that knows nothing of them. It has the preset's settings of a master, its clocks converted to
decisions. Stable-Baselines3's DQN has no double Q-learning, no hindsight over options, and discounts once a decision.
Stored as the study's runs, ``benchmarks.asymmetric.tables`` has the row. Not resumable, as that library's replay is.
"""

import argparse
import dataclasses
import json
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.methods.asymmetric import Asymmetric, AsymmetricConfig
from agents.studies.names import presets_of
from benchmarks.asymmetric import study
from benchmarks.asymmetric.tables import ANOTHER_MASTER
from benchmarks.card import store
from budget_wrappers.errors import ConfigError
from budget_wrappers.integrations.sb3 import metered
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import AgentPolicy, SubPolicies
from budget_wrappers.wrappers import RecordComputeStatistics

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def converted(config: AsymmetricConfig) -> dict[str, Any]:
    """Return the master's settings for Stable-Baselines3's DQN, which counts decisions of ``hold`` steps each."""
    master, hold = config.master(), config.hold
    # What that library's DQN has no key for.
    for key, only in (("reward_scale", 1.0), ("dueling", False), ("prioritized", False)):
        if master[key] != only:
            raise ConfigError(f"master_{key}={master[key]!r}: expected {only!r} with this master; leave it out")
    if not isinstance(hold, int):
        raise ConfigError(f"hold={hold!r}: expected one number, as a discount is the same for all decisions there")
    return {
        "learning_rate": master["learning_rate"],
        "buffer_size": master["buffer_size"],
        "batch_size": master["batch_size"],
        "learning_starts": -(-master["learning_starts"] // hold),
        "target_update_interval": -(-master["target_update_interval"] // hold),
        "train_freq": 1,
        "gradient_steps": hold,
        "gamma": config.gamma**hold if config.bootstrap == "gamma_n" else config.gamma,
        "exploration_fraction": master["exploration_fraction"],
        "exploration_final_eps": master["exploration_final_eps"],
        "max_grad_norm": master["max_grad_norm"],
        "policy_kwargs": {
            "net_arch": list(master["net_arch"]),
            "activation_fn": ACTIVATIONS[master["activation"]],
        },
    }


def train(task: str, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Train both sub-policies and their master; return the record of the run."""
    from stable_baselines3 import DQN

    run, table = study.settings_of(task, changes)
    meter = ComputeMeter()
    agent = Asymmetric(run.make_env(), meter=meter, **{**table, "master_hindsight": 0, "seed": seed})
    env = RecordComputeStatistics(agent.options_for_another_master(), meter)
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"
    master = metered(DQN(policy, env, seed=seed, device="cpu", **converted(agent.config)), meter)
    master.learn(-(-run.steps // agent.config.hold))
    while agent.small.num_timesteps < run.steps:  # options that an episode's end cut short
        master.learn(1, reset_num_timesteps=False)
    return {
        "task": task,
        "method": ANOTHER_MASTER,
        "seed": seed,
        "run": dataclasses.asdict(run),
        "settings": agent.config.to_dict(),
        "master": {key: value for key, value in converted(agent.config).items() if key != "policy_kwargs"},
        "curve": [],
        "final": {
            name: outcome_of(agent, master, run.make_env(), study.EPISODES[task], deterministic)
            for name, deterministic in (("deterministic", True), ("stochastic", False))
        },
        "training_flops": {key: int(meter.totals[key]) for key in ("act", "learn")},
        "environment_steps": agent.small.num_timesteps,
        "decisions": master.num_timesteps,
    }


def outcome_of(agent: Asymmetric, master: Any, env: Any, episodes: int, deterministic: bool) -> dict[str, Any]:
    """Evaluate the master over the sub-policies and return what the table needs, and every episode."""
    parts = {"small": agent.small, "large": agent.large}
    policies = [AgentPolicy(part, part.flops_per_action, name, deterministic) for name, part in parts.items()]
    options = RecordComputeStatistics(agent.choices_in(env, SubPolicies(policies)), agent.meter)
    result = evaluate_policy(master, options, episodes, REPORT_SEED, deterministic)
    env.close()
    return {**result.summary(), "share_large": study.share_of_large(result), "by_episode": result.by_episode()}


def main() -> None:
    """Run one training and store its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train on one task")
    running.add_argument("task", choices=presets_of("asymmetric"))
    running.add_argument("--seed", type=int, required=True)
    running.add_argument("--steps", type=int, help="instead of the preset's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task, seed = arguments.task, arguments.seed
    changes = {} if arguments.steps is None else {"steps": arguments.steps}
    record = train(task, seed, changes)
    store(study.FOLDER / task / f"{ANOTHER_MASTER}-{record['run']['steps']}-seed{seed}.json", record)
    print(json.dumps({key: value for key, value in record["final"]["deterministic"].items() if key != "by_episode"}))


if __name__ == "__main__":
    main()
