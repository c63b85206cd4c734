"""A comparison counts what ran, has its controls beside it, keeps what is finished, and refuses to mix settings."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from agents import BexaSAC
from agents.cli import main
from agents.report.tradeoff import Comparison, TradeoffPoint, summarise
from agents.runs.log import CHECKPOINT
from agents.runs.workers import Lost
from agents.studies import entrants, tradeoff
from agents.studies.fit import WITHIN
from agents.studies.names import slug
from agents.studies.tradeoff import TradeoffConfig, run_tradeoff
from budget_wrappers.errors import CheckpointError, ConfigError, SpaceError, WorkerLostError

METHODS = ("sac:8,8", "bexa-sac:8,8", "asymmetric:8,8@small_net_arch=4@hold=5", "dense:4")
CONTROLS = ("fit", "coin", "shuffled", "cheapest", "dearest")
CONFIG = TradeoffConfig(
    env=("Pendulum-v1",),
    methods=(*METHODS, *CONTROLS),
    steps=60,
    seeds=(0, 1),
    budgets=(0.3,),
    weights=(50.0,),
    batch_size=8,
    learning_starts=10,
    episodes=1,
    eval_every=30,
    eval_episodes=1,
    workers=1,
)
FEW = dataclasses.replace(CONFIG, methods=("sac:8,8", "dense:4"))
# Pendulum: O = 3, A = 1, of which SAC says mean and deviation. Exits: 2·3·2; 2·(3·8 + 8·2); 2·(3·8 + 8·8 + 8·2).
EXITS = (12, 80, 208)
SMALL, LARGE = 2 * (3 * 4 + 4 * 2), 208
# The master has 2×32 and two values: 2·(3·32 + 32·32 + 32·2) = 2368, once in 5 steps.
MASTER = 2368 / 5


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tradeoff")
    assert run_tradeoff(CONFIG, folder) == [folder]
    return folder


def points(folder: Path, label: str) -> list[TradeoffPoint]:
    return [point for point in Comparison.read(folder).points if point.label == label]


BEXA, ASYMMETRIC = "bexa-sac:8,8, b = 0.3", "asymmetric:8,8, λ = 50"


def test_points_are_every_method_price_seed_and_control(finished: Path) -> None:
    labels = [(point.label, point.seed) for point in Comparison.read(finished).points]
    chosen = [f"{control} of {label}" for control in CONTROLS for label in (BEXA, ASYMMETRIC)]
    assert sorted(labels) == sorted(
        (label, s) for s in (0, 1) for label in ("sac:8,8", BEXA, ASYMMETRIC, "dense:4", *chosen)
    )


def test_flops_are_those_that_ran_the_master_s_included(finished: Path) -> None:
    assert [point.flops_per_step for point in points(finished, "sac:8,8")] == [LARGE] * 2
    assert [point.flops_per_step for point in points(finished, "dense:4")] == [2 * (3 * 4 + 4 * 4 + 4 * 2)] * 2
    for point in points(finished, ASYMMETRIC):
        share = point.extras["share_large"]
        assert point.flops_per_step == pytest.approx(MASTER + share * LARGE + (1 - share) * SMALL)


def test_cheapest_and_dearest_are_one_exit_or_sub_policy_with_no_gate_or_master_asked(finished: Path) -> None:
    for control, exit_flops, sub_policy in (("cheapest", EXITS[0], SMALL), ("dearest", EXITS[-1], LARGE)):
        assert {point.flops_per_step for point in points(finished, f"{control} of {BEXA}")} == {exit_flops}
        assert {point.flops_per_step for point in points(finished, f"{control} of {ASYMMETRIC}")} == {sub_policy}


def test_shuffling_keeps_the_count_of_each_choice_and_what_choosing_cost(finished: Path) -> None:
    # Pendulum's episodes all last 200 steps: one pass over the choices is one episode.
    for label in (BEXA, ASYMMETRIC):
        for own, shuffled in zip(points(finished, label), points(finished, f"shuffled of {label}"), strict=True):
            assert shuffled.flops_per_step == pytest.approx(own.flops_per_step, rel=1e-12)


def test_a_coin_costs_what_the_method_costs_within_the_error_of_its_draws(finished: Path) -> None:
    for own, coin in zip(points(finished, BEXA), points(finished, f"coin of {BEXA}"), strict=True):
        # 200 draws of costs between 12 and 208: a standard error of at most 98/√200 = 6.9.
        assert abs(coin.flops_per_step - own.flops_per_step) < 4 * 6.93


def test_a_fit_is_within_two_percent_and_its_critics_keep_the_method_s_widths(finished: Path) -> None:
    for label in (BEXA, ASYMMETRIC):
        own = points(finished, label)
        mean = sum(point.flops_per_step for point in own) / len(own)
        for fit in points(finished, f"fit of {label}"):
            # 2 % of these costs is less than one unit at times; what the row is says what it is.
            assert abs(fit.flops_per_step / mean - 1) < max(WITHIN, 20 / mean)
            assert fit.extras["settings"]["settings"]["critic_net_arch"] == [8, 8]
            assert fit.extras["of"] == label
    assert points(finished, "dense:4")[0].extras["settings"]["settings"]["critic_net_arch"] == [8, 8]


def test_points_say_what_they_are_and_what_they_took(finished: Path) -> None:
    for point in Comparison.read(finished).points:
        extras, plain = point.extras, point.method in ("sac:8,8", "dense:4", *CONTROLS)
        assert extras["baseline"] == plain
        assert extras["train_learn_flops"] > 0
        assert (finished / extras["run"] / "config.json").is_file()
        assert extras["what"]
        if point.method not in CONTROLS[1:]:
            assert [step for step, _ in point.curve] == [30, 60]
            assert extras["us_per_action"] > 0
    (bexa, _) = points(finished, BEXA)
    assert sum(bexa.extras["shares"].values()) == pytest.approx(1)
    assert len(bexa.extras["timeline"]["choices"]) == 200


def test_the_reference_is_the_dearest_baseline(finished: Path) -> None:
    (reference,) = (row for row in summarise(Comparison.read(finished).points) if row.reference)
    assert reference.flops_per_step == LARGE


def test_each_training_is_a_run_folder_that_other_commands_take(finished: Path) -> None:
    folder = finished / points(finished, BEXA)[0].extras["run"]
    agent = BexaSAC.load(folder / CHECKPOINT, gym.make("Pendulum-v1"))
    assert agent.config.budget == 0.3
    assert agent.num_timesteps == 60


def test_two_studies_pool_what_was_made_alike_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(FEW, seeds=(2,), methods=("sac:8,8", "dense:4"))
    run_tradeoff(other, tmp_path / "more")
    run_tradeoff(dataclasses.replace(other, learning_rate=0.01), tmp_path / "else")
    folders = (finished, tmp_path / "more", tmp_path / "else")
    merged = Comparison.merged([Comparison.read(folder) for folder in folders])
    rows = {(row.label, tuple(point.seed for point in row.points)) for row in summarise(merged.points)}
    assert {("sac:8,8, learning_rate = 0.0003", (0, 1, 2)), ("sac:8,8, learning_rate = 0.01", (2,))} <= rows
    assert (BEXA, (0, 1)) in rows


def test_second_run_trains_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff, "work", None)
    before = Comparison.read(finished)
    run_tradeoff(CONFIG, finished)
    assert Comparison.read(finished).points == before.points


def test_interrupted_run_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, done = entrants.work, []

    def interrupted(entrant: Any, advance: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(entrant.name)
        return work(entrant, advance)

    monkeypatch.setattr(tradeoff, "work", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_tradeoff(FEW, tmp_path)
    assert not (tmp_path / "tradeoff.json").exists()
    done.clear()
    run_tradeoff(FEW, tmp_path)
    assert done == ["dense-4-seed0", "dense-4-seed1"]


def die_once(entrant: Any, advance: Any) -> Any:
    """Do the work of an entrant; its process is killed after its first checkpoint, once."""
    steps, marker = 0, Path(entrant.folder) / "died"

    def on(count: int) -> bool:
        nonlocal steps
        steps += count
        if steps > 30 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return advance(count)

    return entrants.work(entrant, on)


def test_a_worker_and_the_one_that_follows_when_it_is_killed_measure_what_one_process_does(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tradeoff, "work", die_once)
    one = dataclasses.replace(FEW, methods=("sac:8,8",), seeds=(1,), workers=2)
    run_tradeoff(one, tmp_path, progress=False)
    assert (tmp_path / "died").exists()
    (there,), (_, here) = Comparison.read(tmp_path).points, points(finished, "sac:8,8")
    assert (there.episodes, there.curve) == (here.episodes, here.curve)


def test_what_is_lost_each_time_is_left_out_and_named(tmp_path: Path) -> None:
    def on(do: Any, jobs: Any, advance: Any, workers: int) -> Any:
        for job in jobs:
            if job.name == "sac-8-8-seed1":
                yield job, Lost("killed by SIGKILL", 3)
            else:
                yield job, do(job, lambda steps: True)

    few = dataclasses.replace(FEW, methods=("sac:8,8",), steps=30)
    with pytest.raises(WorkerLostError, match=r"no result of sac-8-8-seed1 .*--folder"):
        run_tradeoff(few, tmp_path, on=on)
    written = Comparison.read(tmp_path)
    assert [(point.label, point.seed) for point in written.points] == [("sac:8,8", 0)]
    assert set(written.settings["failed"]) == {"sac-8-8-seed1"}
    run_tradeoff(few, tmp_path)
    assert len(Comparison.read(tmp_path).points) == 2


def test_a_training_that_diverges_is_left_out_and_named(tmp_path: Path) -> None:
    methods = ("sac:8,8", "wild=sac:8,8@learning_rate=1e30")
    config = dataclasses.replace(FEW, methods=methods, seeds=(0,), steps=200)
    run_tradeoff(config, tmp_path)
    written = Comparison.read(tmp_path)
    assert [point.label for point in written.points] == ["sac:8,8"]
    assert "wild-seed0" in written.settings["failed"]


def test_seeds_can_be_added(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = dataclasses.replace(CONFIG, seeds=(0, 1, 2))
    (field,) = more.fields(finished)
    assert {entrant.name[-1] for entrant in field.entrants() if entrant.found() is None} == {"2"}


@pytest.mark.parametrize("name", ["", "SAC="])  # what the run calls itself, too
def test_a_run_that_was_trained_for_longer_since_is_not_taken_for_one_of_fewer_steps(tmp_path: Path, name: str) -> None:
    config = dataclasses.replace(FEW, methods=(f"{name}sac:8,8",), seeds=(0,))
    run_tradeoff(config, tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["train", "--resume", str(run)]) == 0  # which has ended: nothing is trained
    run_tradeoff(config, tmp_path)
    assert main(["train", "--resume", str(run), "--steps", "90"]) == 0
    with pytest.raises(ConfigError, match=r"was trained for 90 steps: expected 60.*choose another"):
        run_tradeoff(config, tmp_path)


def test_settings_of_a_control_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="settings of dense:4: expected none"):
        run_tradeoff(FEW, tmp_path, settings={"dense:4": {"gamma": 0.5}})


def test_methods_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    methods = ("sac:8,8", "sac-8-8=sac:16,16")
    with pytest.raises(ConfigError, match=r"runs/sac-8-8-seed0.*NAME="):
        run_tradeoff(dataclasses.replace(FEW, methods=methods), tmp_path)


def test_other_settings_in_the_same_folder_are_refused(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=8: expected 16.*choose another folder"):
        run_tradeoff(dataclasses.replace(CONFIG, batch_size=16), finished)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    one = dataclasses.replace(FEW, seeds=(0,))
    run_tradeoff(one, tmp_path)
    path = tmp_path / "runs" / "dense-4-seed0" / "tradeoff.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(CheckpointError, match="dense-4-seed0"):
        run_tradeoff(one, tmp_path)


def test_bad_input_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    refused = [
        ({"env": ("Nowhere-v0",)}, ConfigError, "Nowhere-v0"),
        ({"env": ("CartPole-v1",)}, SpaceError, "expected a Box"),
        ({"methods": ("sac", "sac")}, ConfigError, "each once"),
        ({"methods": ("sac", "sac@gamma=0.5")}, ConfigError, "'sac' stands there twice"),
        ({"methods": ("coin",)}, ConfigError, "a method besides the controls"),
        ({"methods": ("sac", "asymmetric@small_net_arch=256,256")}, ConfigError, "small_net_arch"),
        ({"methods": ("sac", "bexa-sac"), "budgets": ()}, ConfigError, "budgets"),
    ]
    for change, kind, said in refused:
        with pytest.raises(kind, match=said):
            run_tradeoff(dataclasses.replace(CONFIG, **change), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", ()),
        ("seeds", (1, 1)),
        ("weights", (0.1, 0.1)),
        ("budgets", (0.2, 0.20000001)),  # rows and folders of one name
        ("steps", 0),
        ("workers", 0),
        ("env", ()),
    ],
)
def test_bounds(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(CONFIG, **{key: value})


def test_discrete_environments_are_compared_and_several_have_folders_of_their_own(tmp_path: Path) -> None:
    methods = ("dqn:8,8", "bexa-dqn:8,8", "dense:4", "fit", "coin")
    config = dataclasses.replace(CONFIG, env=("CartPole-v1", "Acrobot-v1"), methods=methods, seeds=(0,))
    folders = run_tradeoff(config, tmp_path)
    assert [folder.name for folder in folders] == ["CartPole-v1", "Acrobot-v1"]
    labels = {point.label for point in Comparison.read(folders[1]).points}
    assert labels == {
        "dqn:8,8",
        "bexa-dqn:8,8, b = 0.3",
        "dense:4",
        "coin of bexa-dqn:8,8, b = 0.3",
        "fit of bexa-dqn:8,8, b = 0.3",
    }


def test_an_agent_that_reads_its_budget_gives_its_front_from_one_training(tmp_path: Path) -> None:
    methods = ("sac:8,8", "read=bexa-sac:8,8@budget_from_observation=true", "coin")
    config = dataclasses.replace(CONFIG, methods=methods, seeds=(0,), budgets=(0.0, 1.0))
    run_tradeoff(config, tmp_path)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"sac-8-8-seed0", "read-seed0"}
    rows = {point.label for point in Comparison.read(tmp_path).points}
    assert rows == {"sac:8,8", "read, b = 0", "read, b = 1", "coin of read, b = 0", "coin of read, b = 1"}
    # Fewer rows are asked for later: none of the others is taken from the folder.
    run_tradeoff(dataclasses.replace(config, methods=methods[:2], budgets=(1.0,)), tmp_path)
    assert {point.label for point in Comparison.read(tmp_path).points} == {"sac:8,8", "read, b = 1"}


def test_what_has_nothing_to_choose_has_no_coin_and_is_found_again(tmp_path: Path) -> None:
    methods = ("sac+polyprune:8,8@final=0.5", "backbone=bexa-sac:8,8@acting=backbone", "coin")
    config = dataclasses.replace(CONFIG, methods=methods, seeds=(0,))
    run_tradeoff(config, tmp_path)
    labels = [point.label for point in Comparison.read(tmp_path).points]
    assert labels == ["sac+polyprune:8,8", "backbone, b = 0.3"]
    (field,) = config.fields(tmp_path)
    assert all(entrant.found() for entrant in field.entrants())


def test_methods_combine(tmp_path: Path) -> None:
    methods = ("sac:8,8", "sac+exits+polyprune:8,8@polyprune.final=0.5")
    run_tradeoff(dataclasses.replace(CONFIG, methods=methods, seeds=(0,)), tmp_path)
    record = json.loads((tmp_path / "runs" / "sac+exits+polyprune-8-8-b0.3-seed0" / "config.json").read_text())
    assert [one["name"] for one in record["methods"]["methods"]] == ["exits", "polyprune"]


def test_all_begin_to_learn_at_the_same_step() -> None:
    # SAC's own is 100 and that of BEXA 5,000: such a comparison would be one of unlike trainings.
    for steps, expected in ((60_000, 1_000), (500, 50)):
        config = TradeoffConfig(("Pendulum-v1",), ("sac", "bexa-sac", "own=sac@learning_starts=7"), steps=steps)
        (field,) = config.fields(Path())
        starts = {spec.name: recipe.get("learning_starts") for spec, recipe in field.trained()}
        assert starts == {"sac": expected, "bexa-sac": expected, "own": 7}


def test_folders_have_names_that_any_file_system_takes() -> None:
    assert slug("asymmetric/swimmer, λ = 0.01") == "asymmetric-swimmer-w0.01"
    assert slug("../x") == "x"
    assert slug("..") == "policy"
