"""The worker of ``benchmarks.unmoved``: trains agents of one version of the code and describes all their numbers.

``python -P benchmarks/unmoved_worker.py TREE CASES RESULTS`` imports ``agents`` from the folder TREE, reads the cases
from the JSON file CASES and writes their entries to the JSON file RESULTS. Only public names of ``agents`` are used, so
that one worker serves every version; this file imports nothing else of the repository.
"""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import unittest.mock
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from safetensors import safe_open

STEPS, UPDATES = 260, 260
"""Environment steps of an agent that learns online, and updates of one that learns from data."""
EPISODE = 50
"""Steps after which an episode of Pendulum-v1 ends: a checkpoint falls on an episode's end."""
LOGGED_EVERY = 65
ROWS = 600
"""Transitions of a data set."""
HEADER = "budget_wrappers"
"""Key of a checkpoint's header in the metadata of the file."""
ASIDE = ("versions", "crc32")
"""Keys of that header that are left out: versions may differ, and checksums follow from the tensors."""
LATER = ("gate/information", "information", "critic_net_arch", "config/adam_eps", "config/loss")
"""Ends of entries that later versions add beside all numbers that there were: they are left out."""

Entries = dict[str, str]


# ---- numbers as text ------------------------------------------------------------------------------------------------


def digest(value: Any) -> str:
    """Return the SHA-256 of the type, shape and bytes of a tensor or an array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().numpy()
    array = np.ascontiguousarray(value)
    shape = tuple(np.shape(value))
    return hashlib.sha256(f"{array.dtype} {shape} ".encode() + array.tobytes()).hexdigest()


def exact(value: Any) -> str:
    """Return ``value`` as text that is equal only where every bit is: floats in hexadecimal, big tensors as digests."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {exact(value.item())}" if value.numel() == 1 else digest(value)
    if isinstance(value, np.ndarray):
        return digest(value)
    if isinstance(value, np.generic):
        return f"{value.dtype} {exact(value.item())}"
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {exact(value[key])}" for key in sorted(value, key=str)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(exact, value)) + "]"
    return repr(value)


def leaves(prefix: str, value: Any) -> Entries:
    """Return ``value`` as entries, one for each leaf of its dictionaries; without those that came later."""
    if not isinstance(value, Mapping):
        later = f"/{prefix}".endswith(tuple(f"/{end}" for end in LATER))
        return {} if later else {prefix: exact(value)}
    return {name: text for key in value for name, text in leaves(f"{prefix}/{key}", value[key]).items()}


def case_digest(entries: Entries) -> str:
    """Return one SHA-256 of all entries."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


# ---- environments and data ------------------------------------------------------------------------------------------


class Line(gym.Env):
    """Walk on a line to a goal: an environment for hindsight replay."""

    def __init__(self, discrete: bool) -> None:
        box = spaces.Box(-10.0, 10.0, (1,), np.float32)
        self.observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Start at 0 with a random goal."""
        super().reset(seed=seed)
        self.taken, self.place, self.goal = 0, 0.0, float(self.np_random.choice([-4, -3, 3, 4]))
        return self.observe(), {}

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        """Go up or down."""
        self.taken += 1
        self.place += 1.0 if np.asarray(action).reshape(-1)[0] > 0 else -1.0
        shown = self.observe()
        reward = self.compute_reward(shown["achieved_goal"], shown["desired_goal"], {})
        return shown, float(reward), False, self.taken == 7, {}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: dict) -> np.ndarray:
        """Return 0 at the goal and −1 elsewhere."""
        return -(np.abs(achieved - desired).max(-1) > 0.5).astype(np.float32)

    def observe(self) -> dict[str, np.ndarray]:
        """Return place and goal."""
        place, goal = np.array([self.place], np.float32), np.array([self.goal], np.float32)
        return {"observation": place, "achieved_goal": place, "desired_goal": goal}


class Levers(gym.ActionWrapper):
    """Moves a pendulum by three actions with bounds of their own."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.action_space = spaces.Box(np.array([-2, -1, -3], np.float32), np.array([2, 1, 1], np.float32))

    def action(self, action: np.ndarray) -> np.ndarray:
        """Return the torque."""
        return np.array([action[0] + 0.5 * action[1] - 0.25 * action[2]], np.float32)


class Lanes(gym.ActionWrapper):
    """Pushes a cart by four choices, counted from 3."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.action_space = spaces.Discrete(4, start=3)

    def action(self, action: int) -> int:
        """Return left or right."""
        return int(action in (4, 6))


def single_env(name: str) -> gym.Env:
    """Return one environment by its name in a case."""
    if name.endswith("line"):
        return Line(discrete=name.startswith("discrete"))
    if name in ("levers", "Pendulum-v1"):
        env = gym.make("Pendulum-v1", max_episode_steps=EPISODE)
        return Levers(env) if name == "levers" else env
    env = gym.make("CartPole-v1")
    return Lanes(env) if name == "lanes" else env


def env_of(case: Mapping[str, Any]) -> Any:
    """Return the environment of a case, with its wrappers."""
    from budget_wrappers import wrappers
    from budget_wrappers.metering import ComputeMeter

    if case["copies"]:
        from budget_wrappers.wrappers import vector as kinds

        mode = gym.vector.AutoresetMode(case["autoreset"])
        env = gym.vector.SyncVectorEnv([lambda: single_env(case["env"])] * case["copies"], autoreset_mode=mode)
    else:
        kinds, env = wrappers, single_env(case["env"])
    if case["budget_input"]:
        env = kinds.BudgetAwareObservation(env, "budget", draw=(0.0, 1.0))
    if case["penalty"]:
        env = kinds.ComputePenaltyReward(env, weight=case["penalty"], meter=ComputeMeter("unmoved"))
    return env


def data_of(name: str, folder: Path) -> str:
    """Return the folder of a Minari data set of random actions in the environment ``name``, made once."""
    identifier = f"random/{name.lower().removesuffix('-v1')}-v0"
    if not (folder / identifier).exists():
        from minari import create_dataset_from_buffers

        with unittest.mock.patch.dict(os.environ, MINARI_DATASETS_PATH=str(folder)), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            env = single_env(name)
            create_dataset_from_buffers(
                identifier,
                random_episodes(env),
                observation_space=env.observation_space,
                action_space=env.action_space,
                algorithm_name="random",
                data_format="hdf5",
            )
    return str(folder / identifier)


def random_episodes(env: gym.Env) -> list[Any]:
    """Return episodes of random actions, ``ROWS`` transitions or a few more."""
    from minari.data_collector import EpisodeBuffer

    env.action_space.seed(0)
    episodes: list[Any] = []
    while sum(map(len, episodes)) < ROWS:
        columns: dict[str, list[Any]] = {name: [] for name in ("actions", "rewards", "terminations", "truncations")}
        observations, over = [env.reset(seed=len(episodes))[0].copy()], False
        while not over:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            observations.append(observation.copy())
            row = (action, float(reward), bool(terminated), bool(truncated))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        episodes.append(EpisodeBuffer(seed=len(episodes), observations=observations, **columns))
    return episodes


# ---- what an agent holds --------------------------------------------------------------------------------------------


def state_entries(agent: Any) -> Entries:
    """Return every number that the agent holds in memory."""
    entries: Entries = {}
    for name, module in agent.modules.items():
        entries |= {f"module/{name}/{key}": digest(value) for key, value in module.state_dict().items()}
    for name, optimizer in agent.optimizers.items():
        entries |= leaves(f"optimizer/{name}", optimizer.state_dict()["state"])
        entries[f"optimizer/{name}/groups"] = exact(optimizer.state_dict()["param_groups"])
    entries |= leaves("logged", agent.logged()) | leaves("metrics", agent.metrics)
    entries |= leaves("meter", agent.meter.state_dict()) | leaves("plain", agent.plain_state())
    entries |= leaves("rng", agent.rng.bit_generator.state) | {"generator": digest(agent.generator.get_state())}
    entries |= leaves("config", vars(agent.config)) | {"flops_per_action": exact(agent.flops_per_action)}
    return entries


def file_entries(agent: Any) -> Entries:
    """Return the tensors and the header of the checkpoint that the agent writes, replay included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.safetensors"
        agent.save(path, replay=True)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            entries = {f"file/{name}": digest(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata[HEADER])
    entries |= leaves("header", {key: value for key, value in header.items() if key not in ASIDE})
    return entries


def observations_of(space: gym.Space, rows: int) -> Any:
    """Return ``rows`` random observations, the same for equal spaces; numbers lie in [-1, 1], or within the bounds."""
    rng = np.random.default_rng(1)

    def of(box: spaces.Box) -> np.ndarray:
        low, high = np.maximum(box.low, -1.0), np.minimum(box.high, 1.0)
        return (low + rng.random((rows, *box.shape)) * (high - low)).astype(np.float32)

    return {key: of(box) for key, box in space.items()} if isinstance(space, spaces.Dict) else of(space)


def predicted_entries(agent: Any) -> Entries:
    """Return actions on fixed observations: deterministic, drawn, in batches and singly, and what they charge."""
    entries: Entries = {}
    for rows in (1, 7, 64):
        shown = observations_of(agent.observation_space, rows)
        for deterministic in (True, False, False):
            action, _ = agent.predict(shown, deterministic=deterministic)
            entries[f"predict/{len(entries)}"] = digest(action)
    shown = observations_of(agent.observation_space, 5)
    for row in range(5):
        one = {key: value[row] for key, value in shown.items()} if isinstance(shown, dict) else shown[row]
        entries[f"predict/{len(entries)}"] = digest(agent.predict(one, deterministic=row % 2 == 0)[0])
    after = leaves("meter", agent.meter.state_dict()) | leaves("rng", agent.rng.bit_generator.state)
    return entries | {f"predict/{name}": text for name, text in after.items()}


# ---- cases ----------------------------------------------------------------------------------------------------------


class Watch:
    """A callback that keeps what the agent logs now and then, and can stop the training at an episode's end."""

    def __init__(self, stop_from: int | None = None) -> None:
        self.entries: Entries = {}
        self.stop_from, self.episodes = stop_from, 0

    def __call__(self, agent: Any) -> bool:
        """Look at the agent after a step; return whether training goes on."""
        if agent.num_timesteps % LOGGED_EVERY < 3:
            self.entries |= leaves(f"logged at {agent.num_timesteps}", agent.logged())
        ended, self.episodes = agent.num_episodes > self.episodes, agent.num_episodes
        return self.stop_from is None or agent.num_timesteps < self.stop_from or not ended


def parts_of(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the agent's argument that holds a data set, where it takes one."""
    return {case["data"]: data_of(case["env"], folder)} if case["data"] else {}


def trained_entries(case: Mapping[str, Any], folder: Path) -> Entries:
    """Return the entries of an agent that is trained from the beginning."""
    import agents

    watch, steps = Watch(), UPDATES if case["offline"] else STEPS
    agent = getattr(agents, case["agent"])(env_of(case), **parts_of(case, folder), **case["settings"])
    first = steps // 2 if case["twice"] else steps
    agent.learn(first, watch)
    if case["set_budget"] is not None:
        agent.set_budget(case["set_budget"])
    if case["twice"]:
        agent.learn(steps - first, watch)
    # In this order: what predicts draws from the generators.
    return {**watch.entries, **state_entries(agent), **file_entries(agent), **predicted_entries(agent)}


def continued_entries(case: Mapping[str, Any], folder: Path) -> Entries:
    """Return the entries of an agent that goes on from the checkpoint in ``folder``, which the first worker writes."""
    import agents

    cls, parts = getattr(agents, case["agent"]), parts_of(case, folder)
    path = folder / f"{case['name'].replace('/', ' ')}.safetensors"
    if not path.exists():
        agent = cls(env_of(case), **parts, **case["settings"])
        agent.learn(UPDATES // 2) if case["offline"] else agent.learn(2 * STEPS, Watch(stop_from=STEPS // 2))
        predicted_entries(agent)  # counts which exits act
        if case["budget_input"]:
            agent.set_budget(0.25)
        agent.save(path, replay=True)
    agent, watch = cls.load(path, env_of(case), **parts), Watch()
    loaded = {f"loaded/{name}": text for name, text in state_entries(agent).items()}
    actor = cls.load(path, None)
    acted = {f"loaded/{name}": text for name, text in predicted_entries(actor).items()}
    agent.learn(100, watch)
    return {**loaded, **acted, **watch.entries, **state_entries(agent), **file_entries(agent)}


def entries_of(case: Mapping[str, Any], folder: Path) -> Entries:
    """Return the entries of a case; of one that is refused, the exception.

    Args:
        case: of ``Case.to_dict``.
        folder: holds data sets and checkpoints, and is the same for the versions that are compared.
    """
    run = continued_entries if case["cross"] else trained_entries
    if not case["refused"]:
        return run(case, folder)
    try:
        return run(case, folder)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other version has to raise the same
        return {"refused": f"{type(error).__name__}: {error}"}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: sums over several threads have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_tree(tree: Path) -> None:
    """Raise unless both packages are imported from ``tree``."""
    import agents
    import budget_wrappers

    for package in (agents, budget_wrappers):
        if not Path(package.__file__).resolve().is_relative_to(tree.resolve()):
            raise ImportError(f"{package.__name__} was imported from {package.__file__}: expected from {tree}")


def main() -> None:
    """Run the cases of a file and write their entries to another."""
    tree, cases, results = map(Path, sys.argv[1:])
    require_tree(tree)
    entries = {}
    with one_thread():
        for case in json.loads(cases.read_text()):
            try:
                entries[case["name"]] = entries_of(case, cases.parent)
            except Exception as error:  # noqa: BLE001 - the other cases are compared all the same
                entries[case["name"]] = {"failed": f"{type(error).__name__}: {error}"}
    require_tree(tree)
    results.write_text(json.dumps(entries))


if __name__ == "__main__":
    main()
