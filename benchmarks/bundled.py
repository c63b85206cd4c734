"""The trained policy that comes with the package, made from a run: its networks, without what only training needs.

    budget train sac --env HalfCheetah-v5 --steps 100000 --eval-every 10000 --folder runs/half-cheetah
    python -m benchmarks.bundled runs/half-cheetah half-cheetah

Writes ``agents/methods/presets/policies/<name>.safetensors``; what it was made by, earns and spends is stored in
``results/bundled/<name>.json``.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from agents.loop.agent import OffPolicyAgent
from agents.loop.checkpoint import load_agent, save_agent
from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.loop.header import COUNTERS
from agents.loop.versions import versions
from agents.runs.log import CHECKPOINT, read_config
from agents.runs.run_config import RunConfig
from agents.studies.names import POLICIES, agent_called
from benchmarks.card import RESULTS, store

EPISODES = 20


def acting_only(agent: OffPolicyAgent) -> OffPolicyAgent:
    """Return an agent with the networks of ``agent`` and nothing else: no moments of optimizers, no transitions."""
    settings = {**agent.config.to_dict(), "buffer_size": 1}
    bare = type(agent)(agent.env, **settings)
    for name, module in agent.modules.items():
        bare.modules[name].load_state_dict(module.state_dict())
    for counter in COUNTERS:
        setattr(bare, counter, getattr(agent, counter))
    return bare


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a policy of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args(arguments)
    record = read_config(options.run)
    setup = RunConfig.of(record["run"])
    env = setup.make_env()
    agent = load_agent(agent_called(record["agent"], str(options.run)), options.run / CHECKPOINT, env, replay=False)
    bare = acting_only(agent)
    result = evaluate_policy(bare, env, EPISODES, REPORT_SEED)
    env.close()
    path = save_agent(bare, POLICIES / options.name)
    made = {"agent": record["agent"], "settings": record["settings"], "run": dataclasses.asdict(setup)}
    made |= {"steps": agent.num_timesteps, "versions": versions()}
    made |= {"bytes": path.stat().st_size, "returns": result.raw_returns, "flops_per_step": result.flops_per_step}
    store(RESULTS / "bundled" / f"{options.name}.json", made)
    print(json.dumps({"mean": result.mean, "bytes": made["bytes"], "flops_per_step": result.flops_per_step}))


if __name__ == "__main__":
    main()
