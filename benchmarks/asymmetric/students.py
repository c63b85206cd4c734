"""Students of the published study: networks of the size of ``fit`` that imitate large-only, by cloning or by GAIL.

    python -m benchmarks.asymmetric.students run mountain-car bc --seed 0
    python -m benchmarks.asymmetric.students run mountain-car gail --seed 0

The teacher is the large-only run of that seed and of as many steps, at its end, which ``benchmarks.asymmetric.study``
trains. Of 25 of its episodes, acting by its mean, 50 consecutive pairs each are stored in Minari's format under
``datasets/`` (or ``MINARI_DATASETS_PATH``), outside git, and both students learn from the same pairs. ``bc`` takes
20,000 updates on them; ``gail`` acts for the preset's number of steps, or ``--steps``, with the preset's settings of a
sub-policy. Width, evaluation, storage and resuming are the study's, and its ``table`` shows both beside ``fit``.

Cloning needs no standard deviation, so ``bc`` costs ``2·H·A`` FLOPs less than ``fit`` of the same width H. Hindsight is
off in both: pairs with another goal than the teacher's are none of its own.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch

from agents.behaviour_cloning import BehaviourCloning
from agents.config import OffPolicyConfig
from agents.gail import GAIL
from agents.loop.checkpoint import load_agent
from agents.methods.asymmetric import AsymmetricConfig
from agents.replay.dataset import open_dataset
from agents.replay.demonstrations import write_demonstrations
from agents.runs.log import CHECKPOINT
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.sac import SAC
from agents.studies.names import presets_of
from benchmarks.asymmetric import study
from benchmarks.card import store

DEMONSTRATIONS = {"episodes": 25, "pairs": 50}
FIRST_SEED = 30_000
"""Of the teacher's episodes: others than those of evaluations and of the final one."""
CLONING_UPDATES = 20_000


def train(task: str, method: str, seed: int, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train a student to the end, from the last checkpoint where there is one; return the record of the run.

    Raises:
        SystemExit: no teacher, no asymmetric run whose cost gives the width, or an interrupt.
    """
    config, recipe = study.settings_of(task, changes)
    teacher = f"large-only-{config.steps}-seed{seed}"
    dataset = demonstrations_of(task, teacher, config)
    width = study.width_of_fit(task, config.steps, folder)
    settings = AsymmetricConfig.of({**recipe, "seed": seed}).sub_policy("large")
    settings |= {"net_arch": (width, width), "hindsight": 0}
    if method == "bc":
        agent_class, parts = BehaviourCloning, {}
        keys = {field.name for field in dataclasses.fields(OffPolicyConfig)} - {"learning_rate"}
        settings = {key: settings[key] for key in keys}
        fifth = CLONING_UPDATES // 5
        times = {"steps": CLONING_UPDATES, "eval_every": fifth, "checkpoint_every": fifth}
        run_config = dataclasses.replace(config, dataset=dataset, **times)
    else:
        agent_class, parts, run_config = GAIL, {"demonstrations": dataset}, config
    with Run.open(agent_class, settings, run_config, folder, **parts) as run:
        study.to_the_end(run)
        return {
            **study.record_of(run, task, method, seed, config),
            "updates": run.agent.num_updates,
            "demonstrations": {
                "dataset": dataset,
                "teacher": teacher,
                **DEMONSTRATIONS,
                "transitions": steps_of(dataset),
            },
        }


def demonstrations_of(task: str, teacher: str, config: RunConfig) -> str:
    """Return the id of the data set with the teacher's pairs, which is made below ``MINARI_DATASETS_PATH`` if need be.

    Raises:
        SystemExit: the teacher was not trained, or not to its end.
    """
    dataset = f"asymmetric-{task}/{teacher}-v0"
    checkpoint = study.RUNS / task / teacher / CHECKPOINT
    if not checkpoint.exists():
        seed = teacher.rpartition("seed")[2]
        raise SystemExit(
            f"there is no teacher {checkpoint}: expected the large-only run of seed {seed}; train it with "
            f"python -m benchmarks.asymmetric.study run {task} large-only --seed {seed} --steps {config.steps}"
        )
    env = config.make_env()
    policy = load_agent(SAC, checkpoint, env, replay=False)
    if policy.num_timesteps < config.steps:
        raise SystemExit(f"the teacher {checkpoint} is at step {policy.num_timesteps} of {config.steps}: train it on")
    if (Path(os.environ["MINARI_DATASETS_PATH"]) / dataset).exists():
        env.close()
        return dataset
    write_demonstrations(dataset, policy, env, **DEMONSTRATIONS, seed=FIRST_SEED)
    env.close()
    return dataset


def steps_of(dataset: str) -> int:
    """Return how many transitions a data set has."""
    return int(open_dataset(dataset).total_steps)


def main() -> None:
    """Run one student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train one student on one task")
    running.add_argument("task", choices=presets_of("asymmetric"))
    running.add_argument("method", choices=study.STUDENTS)
    running.add_argument("--seed", type=int, required=True)
    running.add_argument("--steps", type=int, help="of the teacher, and of gail, instead of the preset's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("MINARI_DATASETS_PATH", str(Path("datasets").resolve()))
    Path(os.environ["MINARI_DATASETS_PATH"]).mkdir(parents=True, exist_ok=True)
    task, method, seed = arguments.task, arguments.method, arguments.seed
    changes = {} if arguments.steps is None else {"steps": arguments.steps}
    name = f"{method}-{study.settings_of(task, changes)[0].steps}-seed{seed}"
    record = train(task, method, seed, changes, study.RUNS / task / name)
    store(study.FOLDER / task / f"{name}.json", record)
    print(json.dumps({key: value for key, value in record["final"]["deterministic"].items() if key != "by_episode"}))


if __name__ == "__main__":
    main()
