"""A run that is killed or interrupted ends like one that never was; ``benchmarks/resume.py`` is the long version."""

import dataclasses
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from agents import SAC, TD3, Asymmetric, Exits, PolyPrune
from agents.loop.callbacks import FunctionCallback
from agents.loop.checkpoint import read_header
from agents.loop.method import Method
from agents.runs.log import read_json, read_rows, write_json
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.runs.wrapper_states import load_states
from benchmarks.resume import CASES, CLASSES, Case, differences, study
from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.weighing import multiplier_in

SETTINGS = {"net_arch": (8, 8), "batch_size": 16, "learning_starts": 20, "buffer_size": 500}
CONFIG = RunConfig(
    "Pendulum-v1",
    steps=200,
    max_episode_steps=25,
    eval_every=60,
    eval_episodes=1,
    log_every=40,
    checkpoint_every=50,
    tensorboard=False,
)


WEIGHER = "ComputePenaltyReward.1"
MULTIPLIERS = ["dqn-multiplier", "dqn-multiplier-vector"]


class Killed(BaseException):
    """Stands for a process that ends at once."""


def finished(
    folder: Path, config: RunConfig = CONFIG, agent: Any = SAC, settings: Any = SETTINGS, **parts: Any
) -> Path:
    with Run.start(agent, settings, config, folder, **parts) as run:
        assert run.train()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing disturbed."""
    return finished(tmp_path_factory.mktemp("runs") / "whole")


def killed(
    folder: Path, step: int, config: RunConfig = CONFIG, agent: Any = SAC, settings: Any = SETTINGS, **parts: Any
) -> Path:
    def kill(agent: Any) -> None:
        if agent.num_timesteps >= step:
            raise Killed

    with Run.start(agent, settings, config, folder, **parts) as run:
        run.alongside.append(FunctionCallback(kill))
        with pytest.raises(Killed):
            run.train()
    return folder


@pytest.mark.parametrize("name", ["sac", "dqn", "dqn-multiplier"])
def test_run_killed_twice_equals_one_never_killed(name: str) -> None:
    case = CASES[name]
    small = Case(case.agent, {**case.run, "log_every": 50}, {**case.settings, "learning_starts": 50})
    result = study(small, steps=400, kills=2, seed=1, tell=lambda line: None)
    assert result["differences"] == []
    assert result["rows_compared"] >= 8
    assert len(result["kills"]) == 2


# Before the first checkpoint (75); after it; between a row of metrics and the checkpoint that follows.
@pytest.mark.parametrize("step", [30, 99, 121])
def test_run_killed_at_a_step_equals_one_never_killed(step: int, whole: Path, tmp_path: Path) -> None:
    other = killed(tmp_path / "killed", step)
    with Run.resume(SAC, other) as run:
        assert run.train()
    assert differences(whole, other) == []


@pytest.mark.parametrize("name", ["cql", "asymmetric", "sac-vector", "sac-vector-penalty", *MULTIPLIERS])
def test_offline_composed_and_vector_runs_resume_alike(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.prepare(tmp_path)
    config, agent = case.config(200, tmp_path / "run"), CLASSES[case.agent]
    settings = {**case.settings, "net_arch": (8, 8), "batch_size": 16, "learning_starts": 20}
    whole = finished(tmp_path / "whole", config, agent, settings)
    other = killed(tmp_path / "killed", 160, config, agent, settings)
    with Run.resume(agent, other) as run:
        assert 60 <= run.agent.num_timesteps < 160
        assert run.train()
    assert differences(whole, other) == []
    # To act, an offline agent needs no data.
    assert agent.load(other / "checkpoint.safetensors", config.make_env()).num_timesteps >= 200


@pytest.mark.parametrize("name", MULTIPLIERS)
def test_a_weight_that_adapts_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    config = dataclasses.replace(case.config(500, tmp_path / "run"), penalty=1e-5)
    folder = killed(tmp_path / "killed", 450, config, CLASSES[case.agent], case.settings)
    stored = read_header(folder / "checkpoint.safetensors")["extra"]["wrappers"][WEIGHER]
    with Run.resume(CLASSES[case.agent], folder) as run:
        weigher = multiplier_in(run.agent.env)
        assert weigher.state_dict() == stored
        assert weigher.weight != 1e-5  # two of its intervals are over
        assert multiplier_in(run.evaluation_env) is weigher  # which evaluations do not move
        assert run.train()
        run.report(episodes=1)
        assert weigher.state_dict() == read_header(folder / "checkpoint.safetensors")["extra"]["wrappers"][WEIGHER]


def test_a_checkpoint_without_the_state_of_a_wrapper_is_refused(tmp_path: Path) -> None:
    config = CASES["dqn-multiplier"].config(500, tmp_path)
    with pytest.raises(CheckpointError, match=r"state of the wrappers \[\], and those of the environment are \['Comp"):
        load_states(config.make_env(ComputeMeter()), {}, tmp_path)


def test_interrupted_run_is_saved_at_the_episodes_end_and_equals_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    with Run.start(SAC, SETTINGS, CONFIG, tmp_path / "interrupted") as run:
        run.alongside.append(
            FunctionCallback(lambda agent: signal.raise_signal(signal.SIGINT) if agent.num_timesteps == 110 else None)
        )
        assert not run.train()
        assert (run.stop.reason, run.agent.num_timesteps) == (signal.SIGINT, 125)
    with Run.resume(SAC, tmp_path / "interrupted") as run:
        assert run.agent.num_timesteps == 125
        assert run.train()
    assert differences(whole, tmp_path / "interrupted") == []


def test_failed_run_keeps_its_checkpoint_and_metrics(tmp_path: Path) -> None:
    folder = killed(tmp_path / "run", 160)
    # Episodes of 25 steps, checkpoints at the first episode end after 50, 100 and 150 steps.
    with Run.resume(SAC, folder) as run:
        assert run.agent.num_timesteps == 150
    assert [row["step"] for row in read_rows(folder, "training")] == [40, 80, 120]


def test_finished_run_can_be_trained_further(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    with Run.resume(SAC, folder, steps=240) as run:
        assert run.train()
        assert run.agent.num_timesteps == 240


def test_finished_run_has_nothing_left_to_do(whole: Path) -> None:
    rows = list(read_rows(whole))
    with Run.resume(SAC, whole) as run:
        assert run.train()
    assert list(read_rows(whole)) == rows


def test_report_leaves_no_trace_and_writes_the_comparison(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    with Run.resume(SAC, folder) as run:
        before = run.agent.meter.totals, run.agent.rng.bit_generator.state
        result = run.report(episodes=2)
        assert (run.agent.meter.totals, run.agent.rng.bit_generator.state) == before
    assert result.flops_per_step == run.agent.flops_per_action
    assert (folder / "tradeoff.json").exists()


def test_lost_metrics_are_not_made_up(tmp_path: Path) -> None:
    folder = killed(tmp_path / "run", 160)
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="put the whole file back"):
        Run.resume(SAC, folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"eval_every": -1}, "eval_every=-1: expected 0 or more"),
        ({"penalty": -0.5}, r"penalty=-0\.5: expected a weight of 0 or more"),
        ({"stepps": 3}, "RunConfig has no key 'stepps'; did you mean 'steps'"),
    ],
)
def test_run_config_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.of({"env": "Pendulum-v1", **settings})


def test_unknown_environment_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env='Pendulum-v99' cannot be made"):
        Run.start(SAC, SETTINGS, RunConfig("Pendulum-v99"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_set_is_for_offline_agents_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset='x' for SAC: expected None, as it learns online"):
        Run.start(SAC, SETTINGS, RunConfig("Pendulum-v1", dataset="x"), tmp_path / "run")


def test_open_starts_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    with Run.open(SAC, SETTINGS, CONFIG, tmp_path / "run") as run:
        run.train()
    with Run.open(SAC, SETTINGS, CONFIG, tmp_path / "run") as run:
        assert run.agent.num_timesteps >= CONFIG.steps


@pytest.mark.parametrize(
    ("agent", "settings", "config", "message"),
    [
        (TD3, {}, {}, "agent='SAC': expected 'TD3'"),
        (SAC, {"gamma": 0.5}, {}, r"gamma=0.99: expected 0.5"),
        (SAC, {}, {"steps": 7}, r"steps=\d+: expected 7"),
    ],
)
def test_open_refuses_a_folder_of_another_run(
    agent: Any, settings: dict[str, Any], config: dict[str, Any], message: str, whole: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        Run.open(agent, {**SETTINGS, **settings}, dataclasses.replace(CONFIG, **config), whole)


# ---- budget methods -------------------------------------------------------------------------------------------------


def two_methods() -> list[Method]:
    return [Exits(budget=0.3, budget_feedback=1e-2), PolyPrune(final=0.6, start=0.1, end=0.8, every=10)]


@pytest.fixture(scope="module")
def whole_with_methods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("runs") / "whole", methods=two_methods())


# Before the first checkpoint, where config.json alone knows of the methods, and after it.
@pytest.mark.parametrize("step", [30, 121])
@pytest.mark.parametrize("given", [False, True])
def test_run_with_methods_makes_them_again(step: int, given: bool, whole_with_methods: Path, tmp_path: Path) -> None:
    folder = killed(tmp_path / "killed", step, methods=two_methods())
    parts = {"methods": two_methods()} if given else {}
    with Run.resume(SAC, folder, **parts) as run:
        assert [held.name for held in run.agent.methods] == ["exits", "polyprune"]
        assert run.train()
    assert differences(whole_with_methods, folder) == []


def test_a_plain_run_has_no_word_of_methods(whole: Path, whole_with_methods: Path) -> None:
    assert "methods" not in read_json(whole / "config.json")
    records = [held.record() for held in two_methods()]
    assert read_json(whole_with_methods / "config.json")["methods"] == {"methods": records}


def test_a_run_is_resumed_with_its_own_methods_alone(whole: Path, whole_with_methods: Path) -> None:
    with pytest.raises(CheckpointError, match=r"was made with no methods, the agent has \{'methods'"):
        Run.resume(SAC, whole, methods=[PolyPrune()])
    with pytest.raises(CheckpointError, match=r"'budget': 0\.3.*, the agent has .*'budget': 0\.7"):
        Run.resume(SAC, whole_with_methods, methods=[Exits(budget=0.7), two_methods()[1]])


def test_open_compares_methods(whole: Path, whole_with_methods: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole_with_methods, tmp_path / "run")
    with Run.open(SAC, SETTINGS, CONFIG, folder, methods=two_methods()) as run:
        assert run.agent.num_timesteps >= CONFIG.steps
    for there, given in ((folder, []), (folder, two_methods()[:1]), (whole, two_methods())):
        with pytest.raises(
            ConfigError, match=r"holds a run with methods=.*: expected .*, as asked for now; choose ano"
        ):
            Run.open(SAC, SETTINGS, CONFIG, there, methods=given)


def test_a_key_that_a_method_got_later_means_its_default(whole_with_methods: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole_with_methods, tmp_path / "run")
    config = read_json(folder / "config.json")
    del config["methods"]["methods"][0]["settings"]["gate_interval"]
    write_json(folder / "config.json", config)
    for make in (Run.resume, lambda *words, **parts: Run.open(SAC, SETTINGS, CONFIG, folder, **parts)):
        with make(SAC, folder, methods=two_methods()) as run:
            assert run.agent.method("exits").config.gate_interval == 1


@pytest.mark.parametrize("methods", [3, {"methods": 3}, {"methods": [{"name": "exits"}]}, {"methods": [{"name": "x"}]}])
def test_a_damaged_record_of_methods_is_refused(methods: Any, whole_with_methods: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole_with_methods, tmp_path / "run")
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "methods": methods})
    with pytest.raises((ConfigError, CheckpointError), match="methods"):
        Run.resume(SAC, folder)
    with pytest.raises((ConfigError, CheckpointError), match="methods"):
        Run.open(SAC, SETTINGS, CONFIG, folder, methods=two_methods())


def test_one_method_object_is_never_that_of_two_agents(tmp_path: Path) -> None:
    methods = two_methods()
    finished(tmp_path / "one", dataclasses.replace(CONFIG, steps=25), methods=methods)
    with pytest.raises(ConfigError, match=r"the method exits was given to an agent before, .* make another Exits\("):
        Run.start(SAC, SETTINGS, CONFIG, tmp_path / "two", methods=methods)
    assert not (tmp_path / "two").exists()
    shared = [PolyPrune()]
    with pytest.raises(ConfigError, match="the method polyprune was given to an agent before"):
        Asymmetric(
            CONFIG.make_env(), net_arch=(8, 8), small_net_arch=(4, 4), small_methods=shared, large_methods=shared
        )
