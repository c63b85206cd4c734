"""Checkpoints: nothing is lost, nothing is half-written, nothing foreign is opened, a resumed run is the same run."""

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from agents import SAC, TD3
from agents.loop.agent import OffPolicyAgent
from agents.loop.checkpoint import load_agent, read, read_header, restore_agent, save_agent
from agents.loop.header import CHECKSUM, TEXT
from agents.loop.spaces import describe_space, space_of
from agents.nets.networks import Critic
from agents.runs.monitors import Checkpoint
from budget_wrappers import files
from budget_wrappers.errors import CheckpointError, UntrustedFileError
from tests.agents.small import CASES, make_agent, make_env, make_vector

STEPS = 200


class KilledError(Exception):
    """Stands for a process that ends in the middle of a step."""


def killed_at(step: int) -> Callable[[OffPolicyAgent], None]:
    """Return a callback that raises once ``step`` steps are done."""

    def callback(agent: OffPolicyAgent) -> None:
        if agent.num_timesteps >= step:
            raise KilledError

    return callback


def assert_same(one: OffPolicyAgent, other: OffPolicyAgent, folder: Path) -> None:
    """Compare everything that a checkpoint holds: networks, optimizers, generators, replay, meter, counters."""
    states = [read(save_agent(agent, folder / f"{place}", replay=True)) for place, agent in enumerate((one, other))]
    (header, tensors), (other_header, other_tensors) = states
    for one_header in (header, other_header):
        # Rows are counted where a wrapper closes the step, and there is none here.
        one_header["meter"].pop("rows")
    assert header == other_header
    assert tensors.keys() == other_tensors.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], other_tensors[name])] == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a SAC agent that has learnt a little."""
    agent = make_agent("sac").learn(80)
    return save_agent(agent, tmp_path_factory.mktemp("saved") / "agent", replay=True)


# ---- exact resume ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_killed_run_resumes_to_the_same_numbers(name: str, tmp_path: Path) -> None:
    whole = make_agent(name).learn(STEPS)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KilledError):
        make_agent(name).learn(STEPS, [killed_at(137), Checkpoint(path, every=60)])
    resumed = type(whole).load(path, make_env(CASES[name][1]))
    assert 60 <= resumed.num_timesteps < 137
    resumed.learn(STEPS - resumed.num_timesteps)
    assert_same(whole, resumed, tmp_path)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_killed_vector_run_resumes_to_the_same_numbers(mode: str, tmp_path: Path) -> None:
    """A vector run restarts its episodes at each checkpoint, killed or not, so both runs have checkpoints."""
    kept, path = tmp_path / "kept.safetensors", tmp_path / "run.safetensors"
    whole = make_agent("sac", make_vector("Pendulum-v1", mode))
    whole.learn(STEPS, Checkpoint(kept, every=50))
    with pytest.raises(KilledError):
        make_agent("sac", make_vector("Pendulum-v1", mode)).learn(STEPS, [killed_at(140), Checkpoint(path, every=50)])
    resumed = SAC.load(path, make_vector("Pendulum-v1", mode))
    resumed.learn(STEPS - resumed.num_timesteps, Checkpoint(path, every=50))
    assert_same(whole, resumed, tmp_path)


def test_checkpoints_fall_on_episode_ends(tmp_path: Path) -> None:
    seen = []

    class Watch(Checkpoint):
        def save(self, agent: OffPolicyAgent) -> None:
            seen.append(agent.num_timesteps)

    # Episodes of 25 steps: the first end at or after 60 is 75; the next multiple of 60 is 120, its episode end 125.
    make_agent("sac", learning_starts=1000).learn(STEPS, Watch(tmp_path / "x", every=60))
    assert seen == [75, 125, 200]


def test_checkpoints_without_a_replay_hold_the_policy_only(saved: Path, tmp_path: Path) -> None:
    agent = SAC.load(saved, make_env("Pendulum-v1"))
    agent.save(tmp_path / "small")
    restored = SAC.load(tmp_path / "small", make_env("Pendulum-v1"))
    assert (len(agent.replay), len(restored.replay)) == (80, 0)


def test_replay_is_left_in_the_file_where_it_is_not_wanted(saved: Path) -> None:
    assert len(load_agent(SAC, saved, make_env("Pendulum-v1"), replay=False).replay) == 0


def test_predictions_survive_saving(saved: Path) -> None:
    agent = make_agent("sac").learn(80)
    observations = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    restored = SAC.load(saved, make_env("Pendulum-v1"))
    np.testing.assert_array_equal(agent.predict(observations)[0], restored.predict(observations)[0])


def test_restoring_keeps_the_memory_that_the_acting_engine_reads(saved: Path) -> None:
    agent = make_agent("sac", seed=4)
    with pytest.raises(CheckpointError, match=r"seed=3, the agent has seed=4.*make the agent with seed=3"):
        restore_agent(agent, saved)
    agent = make_agent("sac")
    before = [parameter.data_ptr() for parameter in agent.actor.parameters()]
    restore_agent(agent, saved)
    assert [parameter.data_ptr() for parameter in agent.actor.parameters()] == before
    # The engine works on these weights, not on those of a new agent.
    observation = np.ones((1, 3), np.float32)
    mean, _ = agent.actor(torch.from_numpy(observation))
    np.testing.assert_allclose(agent.predict(observation)[0], 2 * torch.tanh(mean[0]).detach().numpy(), atol=1e-6)


def test_loading_without_an_environment_predicts_and_refuses_to_train(saved: Path) -> None:
    agent = SAC.load(saved, None)
    assert agent.predict(np.zeros(3, np.float32))[0].shape == (1,)
    with pytest.raises(CheckpointError, match="call set_env"):
        agent.learn(1)


def test_extra_data_comes_back(tmp_path: Path) -> None:
    path = save_agent(make_agent("sac"), tmp_path / "agent", extra={"callbacks": {"a": [1, 2.5, None]}})
    assert read_header(path)["extra"] == {"callbacks": {"a": [1, 2.5, None]}}


def test_header_names_the_versions_that_wrote_it(saved: Path) -> None:
    assert {"python", "torch", "numpy", "gymnasium", "mujoco"} <= read_header(saved)["versions"].keys()


def test_a_checkpoint_is_an_ordinary_safetensors_file(saved: Path) -> None:
    assert "module/actor/net.0.weight" in load_file(saved)


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(-1, 2, (3,), np.float32),
        gym.spaces.Box(np.array([-1.5, -np.inf]), np.array([0.1, np.inf]), dtype=np.float64),
        gym.spaces.Box(0, 255, (2, 4, 4), np.uint8),
        gym.spaces.Discrete(5, start=-2),
        gym.spaces.Dict({"b": gym.spaces.Discrete(2), "a": gym.spaces.Box(0, 1, (1,))}),
    ],
    ids=str,
)
def test_spaces_survive_json(space: gym.Space) -> None:
    assert space_of(json.loads(json.dumps(describe_space(space))), "x") == space


def test_other_spaces_are_compared_by_their_text() -> None:
    description = describe_space(gym.spaces.MultiDiscrete([2, 3]))
    assert description != describe_space(gym.spaces.MultiDiscrete([2, 4]))
    with pytest.raises(CheckpointError, match=r"MultiDiscrete\(\[2 3\]\).*pass env="):
        space_of(description, "x")


# ---- written whole or not at all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["sync", "replace"])
def test_failed_write_leaves_the_old_file(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent("sac")
    path = save_agent(agent, tmp_path / "agent")
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if failing == "sync":
        monkeypatch.setattr(files, "sync", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)
    agent.learn(60)
    with pytest.raises(CheckpointError, match=r"No space left on device.*an earlier file of that name is unharmed"):
        save_agent(agent, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["agent.safetensors"]


def test_state_that_is_no_plain_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    agent = make_agent("sac")
    agent.plain_state = lambda: {"numbers": {1, 2}}
    with pytest.raises(CheckpointError, match=r"not plain data .*set.*expected numbers, strings, lists"):
        save_agent(agent, tmp_path / "agent")
    assert os.listdir(tmp_path) == []


# ---- foreign and damaged files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file_is_refused(share: float, saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"no whole safetensors file.*truncated or damaged.*another copy"):
        SAC.load(path, make_env("Pendulum-v1"))


def test_flipped_bit_is_found(saved: Path, tmp_path: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-100] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksum.*the file was damaged"):
        SAC.load(path, make_env("Pendulum-v1"))


def test_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*nothing\.safetensors.*check the path"):
        SAC.load(tmp_path / "nothing", None)


def write_torch_zip(path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path)


def write_torch_pickle(path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)


def write_sb3_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
        archive.writestr("policy.pth", b"")


@pytest.mark.parametrize("write", [write_torch_zip, write_torch_pickle, write_sb3_zip])
def test_formats_that_run_code_are_refused_and_the_refusal_says_why(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    write(path)
    with pytest.raises(UntrustedFileError, match=r"can run any code when it is loaded.*trust=True"):
        SAC.load(path, None)


def test_safetensors_of_someone_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"metadata \{'format': 'pt'\}.*safetensors.torch.load_file"):
        SAC.load(path, None)


def with_checksum(text: str) -> dict[str, str]:
    return {TEXT: text, CHECKSUM: str(zlib.crc32(text.encode()))}


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "not a JSON object"), ("[]", "not a JSON object"), ('{"format": 9}', "format 9: expected 2")],
)
def test_headers_of_another_format_are_refused(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=with_checksum(text))
    with pytest.raises(CheckpointError, match=match):
        SAC.load(path, None)


def test_another_agent_is_refused_by_name(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds an agent SAC: expected TD3; load it with SAC\.load"):
        TD3.load(saved, make_env("Pendulum-v1"))


def test_another_space_is_refused_with_both(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"observation space .*the environment has Box.*with the wrappers"):
        SAC.load(saved, make_env("MountainCarContinuous-v0"))


def test_a_key_that_a_later_version_has_added_means_its_default(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_older(path: Path) -> Any:
        header, tensors = read(path)
        config = {key: value for key, value in header["config"].items() if key != "reward_scale"}
        return {**header, "config": config}, tensors

    monkeypatch.setattr("agents.loop.checkpoint.read", read_older)
    restore_agent(make_agent("sac"), saved)
    with pytest.raises(CheckpointError, match=r"reward_scale=1.0, the agent has reward_scale=2.0"):
        restore_agent(make_agent("sac", reward_scale=2.0), saved)


def test_other_networks_are_refused_before_anything_changes(saved: Path) -> None:
    agent = make_agent("sac", critic=lambda o, a, config: Critic(o, a, config.net_arch, config.activation, members=3))
    before = [parameter.clone() for parameter in agent.actor.parameters()]
    with pytest.raises(CheckpointError, match=r"lacks module/critic/members\.2.*with the networks that it was saved"):
        restore_agent(agent, saved)
    assert all(torch.equal(old, new) for old, new in zip(before, agent.actor.parameters(), strict=True))


def test_given_networks_come_back_when_they_are_given_again(tmp_path: Path) -> None:
    def critic(observation_size: int, action_size: int, config: Any) -> Critic:
        return Critic(observation_size, action_size, config.net_arch, config.activation, members=3)

    path = save_agent(make_agent("sac", critic=critic).learn(60), tmp_path / "agent")
    restored = SAC.load(path, make_env("Pendulum-v1"), critic=critic)
    assert len(restored.critic.members) == 3
    with pytest.raises(CheckpointError, match=r"unknown module/critic/members\.2"):
        SAC.load(path, make_env("Pendulum-v1"))
