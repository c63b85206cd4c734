"""Damaged files: single flipped bits in each kind of file that is saved, and checkpoints with mutated headers.

``python -m benchmarks.damage`` flips ``--flips`` bits, one at a time, in each kind of file, and reads the file again. A
flip is *refused* with a named error, or *equal*: what is read is what was saved. Anything else is a *wrong load*; a
traceback, an error that is not the project's, counts as wrong, too.

It then changes ``--headers`` headers of checkpoints at a random place, makes their checksums right again, as an
attacker would, and loads them. A header is *refused*, or the agent is *equal* (the place is not the agent's: versions,
what a run stores beside it), or the place has *another valid value* (a discount of 1, say): then the file is a sound
checkpoint of another agent, which no reader can tell from one that was saved so. Anything else is wrong.
"""

import argparse
import copy
import functools
import math
import os
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents import DQN, SAC, TD3, Asymmetric, Exits
from agents.loop.checkpoint import checksum, read, read_header, save_agent
from agents.loop.header import metadata_of
from agents.replay.dataset import read_transitions, write_dataset
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import RunFolder, read_rows, write_sealed
from agents.runs.records import read_provenance
from agents.studies.policies import PolicyOptions, setup_of
from agents.studies.training import DIVERGED, read_divergence
from benchmarks.card import RESULTS, store
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy, Normalisation
from budget_wrappers.errors import BudgetError
from budget_wrappers.metering import Energy, Latency, Profile
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies.outputs import ActionMap

SMALL = {"net_arch": (4, 4), "batch_size": 8, "learning_starts": 20, "buffer_size": 100}
AGENTS: dict[str, tuple[type, str, dict[str, Any]]] = {
    "SAC": (SAC, "Pendulum-v1", {}),
    "SAC with exits": (SAC, "Pendulum-v1", {"methods": "exits"}),
    "TD3": (TD3, "Pendulum-v1", {"n_step": 3}),
    "DQN, prioritized": (DQN, "CartPole-v1", {"prioritized": True, "dueling": True}),
    "Asymmetric": (Asymmetric, "Pendulum-v1", {"small_net_arch": (2, 2), "master_learning_starts": 5}),
}
EPISODES = [{"return": -143.25 - n, "flops": 190_400.0, "length": 200.0} for n in range(5)]
POINT = TradeoffPoint("asymmetric", "λ = 0.03", 1, -145.25, 952.0, EPISODES, [(500, -900.5)], {"weight": 0.03})
CARD = Profile(
    *("policy", 1_234, "matmul", 617, Latency(10.5, 11.5, 12.5, 10.75, 100, 10, 1, None)),
    *(Energy(0.0015, "estimated", 10, 1.5), 50.0, True, "cpu", {"processor": "one"}),
)
NONSENSE: tuple[Any, ...] = (
    *("text", "", None, True, -1, 0, 1, 2**70, 10**12, 1.5, 1e308, -1e308, math.nan, math.inf, [], {}, [1, 2]),
    *({"a": 1}, [[]], "1", [None]),
)


def small_agent(name: str) -> Any:
    """Return one of ``AGENTS`` that has learned a little."""
    kind, env_id, settings = AGENTS[name]
    own = {**settings, **({"methods": [Exits(budget=0.3)]} if "methods" in settings else {})}
    return kind(gym.make(env_id, max_episode_steps=25), **SMALL, **own).learn(60)


def plain(value: Any) -> Any:
    """Return state as plain data that can be compared, NaN included."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else repr(value)


# ---- flipped bits ---------------------------------------------------------------------------------------------------


def exit_policy() -> BudgetedExitPolicy:
    """Return a policy with exits, untrained."""
    normalisation = Normalisation(np.array([1.0, 0.0, -1.0]), np.array([2.0, 1.0, 0.5]), 5.0)
    network = EarlyExitNetwork(3, 2, (8, 4), activation="tanh")
    return BudgetedExitPolicy(network, ActionMap("squash", (-1.0, -2.0), (1.0, 2.0)), 0.25, normalisation)


def exits_at(path: Path) -> Any:
    """Return everything of a saved policy with exits."""
    made = BudgetedExitPolicy.load(path)
    normalisation = None if made.normalisation is None else vars(made.normalisation)
    return plain([made.network.state_dict(), normalisation, made.budget, vars(made.action_map), made.network.depths])


def a_run(folder: Path) -> Path:
    """Write a run folder of every kind of text."""
    run = {"env": "Pendulum-v1", "steps": 60, "max_episode_steps": 25, "penalty": 1e-4}
    agent = small_agent("SAC")
    with RunFolder(
        folder, {"agent": "SAC", "settings": agent.config.to_dict(), "run": run}, "budget train sac"
    ) as made:
        for step in range(1, 20):
            made.write({"kind": "training", "step": step, "loss": 0.125 * step}, seconds=0.5)
        save_agent(agent, made.checkpoint, extra={"run": made.config["run"]})
    write_sealed(folder / DIVERGED, {"error": "a loss was NaN at step 7"})
    return folder


def a_data_set(folder: Path) -> Path:
    """Write a data set below ``folder``, and return where its files are."""
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    agent = small_agent("SAC")
    write_dataset("test/data-v0", agent, agent.env, 40, seed=3)
    return folder / "test" / "data-v0" / "data"


def transitions_in(folder: Path) -> Any:
    """Return all transitions of a data set."""
    agent = known_agent()
    found = read_transitions(folder, agent.observation_space, agent.action_space, agent.to_array, agent.from_env_action)
    return plain(vars(found))


@functools.cache
def known_agent() -> Any:
    """Return an agent that reads the data set."""
    return small_agent("SAC")


def kinds(folder: Path) -> Iterator[tuple[str, Path, Callable[[Path], Any]]]:
    """Yield each kind of file: its name, one that was saved, and how it is read."""
    for name in AGENTS:
        path = save_agent(small_agent(name), folder / f"{name}.safetensors", replay=True)
        yield f"checkpoint of {name}", path, lambda path: plain(read(path))
    yield "policy with exits", exit_policy().save(folder / "policy"), exits_at
    CARD.save(folder / "card.json")
    yield "profile", folder / "card.json", Profile.load
    written = Comparison("Pendulum-v1", [POINT], versions={"torch": "2.13"}).write(folder / "comparison")
    yield "comparison", written, lambda path: Comparison.read(path.parent)
    data = a_data_set(folder)
    for part in ("main_data.hdf5", "metadata.json"):
        yield f"data set, {part}", data / part, lambda path: transitions_in(path.parent.parent)
    run = a_run(folder / "run")
    yield "metrics of a run", run / "metrics.jsonl", lambda path: plain(list(read_rows(path.parent)))
    yield "record of a run", run / "run.json", lambda path: read_provenance(path.parent)
    yield "divergence of a run", run / DIVERGED, lambda path: read_divergence(path.parent)
    yield "configuration of a run, with its checkpoint", run / "config.json", lambda path: setup_of(PolicyOptions(run))


def flipped(path: Path, load: Callable[[Path], Any], flips: int, draws: random.Random) -> dict[str, Any]:
    """Flip one bit of a file at a time, and return what came of each."""
    content, whole, outcomes, wrong = path.read_bytes(), load(path), Counter[str](), []
    for _ in range(flips):
        place, bit = draws.randrange(len(content)), draws.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = load(path)
        except BudgetError:
            outcomes["refused"] += 1
            continue
        except Exception as error:  # noqa: BLE001  a traceback is what is looked for
            wrong.append({"byte": place, "bit": bit, "outcome": repr(error)[:200]})
            continue
        if found == whole:
            outcomes["equal"] += 1
        elif path.suffix == ".jsonl" and place == len(content) - 1 and found == whole[:-1]:
            # A last row without its end is one that a killed process left half-written: the reader knows no better.
            outcomes["last row lost"] += 1
        else:
            wrong.append({"byte": place, "bit": bit, "outcome": "another load"})
    path.write_bytes(content)
    return {"bytes": len(content), "flips": flips, **outcomes, "wrong": wrong}


# ---- mutated headers ------------------------------------------------------------------------------------------------


def places_in(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each entry of plain data, inner ones too."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places_in(value, (*path, key))


def mutated(header: dict[str, Any], draws: random.Random) -> tuple[dict[str, Any], str]:
    """Return a copy of a header that was changed at one place, and what was done there."""
    header = copy.deepcopy(header)
    # Each key of the top is as likely as any other: the checksums would be most of the places.
    top = draws.choice([key for key in header if key != "crc32"])
    place = draws.choice([(top, *rest) for rest in [(), *places_in(header[top])]])
    holder = header
    for key in place[:-1]:
        holder = holder[key]
    where = ".".join(map(str, place))
    what = draws.randrange(8)
    if what == 0:
        del holder[place[-1]]
        return header, f"{where} is gone"
    if what == 1 and isinstance(holder[place[-1]], dict):
        holder[place[-1]]["chosen by the file"] = draws.choice(NONSENSE)
        return header, f"{where} has a key more"
    holder[place[-1]] = value = draws.choice(NONSENSE)
    return header, f"{where} = {value!r}"


def state_of(agent: Any) -> Any:
    """Return everything of an agent as plain data."""
    parts = {name: module.state_dict() for name, module in agent.modules.items()}
    optimizers = {name: one.state_dict() for name, one in agent.optimizers.items()}
    counters = [agent.num_timesteps, agent.num_rounds, agent.num_updates, agent.num_episodes]
    state = [parts, optimizers, counters, agent.generator.get_state(), agent.rng.bit_generator.state]
    return plain(
        [*state, agent.replay.state_dict(), agent.plain_state(), agent.meter.state_dict(), agent.methods_given]
    )


def described(agent: Any) -> Any:
    """Return what an agent says of itself: configuration and spaces."""
    return plain([agent.config.to_dict(), repr(agent.observation_space), repr(agent.action_space)])


def headers(folder: Path, count: int, draws: random.Random) -> dict[str, Any]:
    """Mutate ``count`` headers of checkpoints, and return what came of each."""
    outcomes, wrong, others = Counter[str](), [], []
    files = [(AGENTS[name][0], save_agent(small_agent(name), folder / name, replay=True)) for name in AGENTS]
    whole = {path: kind.load(path, None) for kind, path in files}
    known = {path: (state_of(agent), described(agent)) for path, agent in whole.items()}
    for number in range(count):
        kind, path = files[number % len(files)]
        header, what = mutated(read_header(path), draws)
        tensors = load_file(path)
        if isinstance(header.get("crc32"), dict):
            header["crc32"] = {name: checksum(tensor) for name, tensor in tensors.items()}
        changed = folder / "changed.safetensors"
        save_file(tensors, changed, metadata=metadata_of(header))
        try:
            agent = kind.load(changed, None)
            state, about = state_of(agent), described(agent)
        except BudgetError:
            outcomes["refused"] += 1
            continue
        except Exception as error:  # noqa: BLE001  a traceback is what is looked for
            wrong.append({"agent": kind.__name__, "change": what, "outcome": repr(error)[:200]})
            continue
        if (state, about) == known[path]:
            outcomes["equal, as the place is not the agent's"] += 1
        else:
            outcomes["another valid value"] += 1
            others.append(f"{kind.__name__}: {what}")
    return {"headers": count, **outcomes, "wrong": wrong, "other_valid_values": others}


def main() -> None:
    """Run both, and store what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200, help="of each kind of file")
    parser.add_argument("--headers", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "damage" / "damage.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    draws = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {}
        for kind, path, load in kinds(folder):
            found[kind] = flipped(path, load, arguments.flips, draws)
            print(f"{kind}: {found[kind]}")
        changed = headers(folder, arguments.headers, draws)
        print(f"headers: {changed}")
    wrong = sum(len(one["wrong"]) for one in found.values()) + len(changed["wrong"])
    path = store(arguments.out, {"seed": arguments.seed, "flipped_bits": found, "mutated_headers": changed})
    print(f"{wrong} wrong loads or tracebacks -> {path}")


if __name__ == "__main__":
    main()
