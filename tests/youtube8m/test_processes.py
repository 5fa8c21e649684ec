"""Several processes train as one does with the whole batch, and none outlives another unawares."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import HashStore

from expertise import cli
from expertise.youtube8m import _watch, checkpoint, launch
from expertise.youtube8m._interrupt import Terminated, forwarded, interruptible, terminable
from expertise.youtube8m._watch import Farewell, Peer, Watch
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.launch import gpus_to_use
from expertise.youtube8m.models import FRAME_MODELS
from expertise.youtube8m.models import MODELS as ALL_MODELS
from expertise.youtube8m.processes import ProcessError, Processes
from expertise.youtube8m.records import encode_sequence_example, write_records
from expertise.youtube8m.step import compiler_found
from expertise.youtube8m.train import train
from youtube8m.conftest import write_tiny
from youtube8m.several import Process, arguments, command, make_runs, said, start, wait_for

VIDEOS, EVALUATED = 609, 33  # the last batch of 32 has one video, and so has that of an evaluation
HALF = 16  # batch size of each of two processes
EXACT = {"num_epochs": 1, "dropout": 0.0, "iterations": 0}
FRAMES = {"frame_features": True, "feature_names": "rgb,audio", "max_frames": 6}
SMALL = {
    "dbof_cluster_size": 8,
    "dbof_hidden_size": 6,
    "netvlad_cluster_size": 4,
    "netvlad_hidden_size": 6,
    "frame_moe_experts": 4,
    "frame_moe_hidden": 6,
    "context_gating_rank": 3,
    "chain_size": 3,
    "shared_expert_size": 5,
    "lstm_cells": 5,
    "gru_cells": 5,
    "nextvlad_cluster_size": 4,
    "nextvlad_hidden_size": 8,
    "attention_heads": 3,
    "attention_size": 4,
}
MODELS: dict[str, dict[str, Any]] = {
    "LogisticModel": {},
    "MoeModel": {"ema_decay": 0.9},
    "streamed": {"model": "MoeModel", "cache_dir": "none"},
    "ContextGatedMoeModel": {},
    "NetVladModel": FRAMES,
    "DbofModel": FRAMES,
    "FrameMoeModel": FRAMES | {"frame_moe_balance": 0.5, "log_device_placement": True},
    "segments": FRAMES | {"model": "NetVladModel", "segment_labels": True, "log_device_placement": True},
}
OTHER_MODELS = {
    name: (FRAMES if name in FRAME_MODELS else {}) for name in ALL_MODELS if name not in MODELS
} | {"compiled": {"model": "MoeModel", "compile": "on"}}
UNLIKE = {  # what all but the first process are given otherwise
    "other batch": {"batch_size": 8},
    "no file": {"train_data_pattern": "/nowhere/*.tfrecord"},
}


def write_frames(folder: Path, name: str, videos: int, seed: int, *, rated: bool = False) -> None:
    """Frame-level records of five classes: a video has none to six frames near the centre of its class.

    ``rated``: it has one at least, and its first segment has a rating of its class, and one of another.
    """
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).integers(40, 216, (5, 8))
    records = []
    for number in range(videos):
        label = int(random.integers(5))
        count = random.integers(int(rated), 7)
        frames = np.clip(centres[label] + random.normal(0, 30, (count, 8)), 0, 255)
        rows = frames.astype(np.uint8)
        lists = {"rgb": [[row[:6].tobytes()] for row in rows], "audio": [[row[6:].tobytes()] for row in rows]}
        context: dict[str, Any] = {"id": [f"{name}{number}"], "labels": [label]}
        if rated:
            classes, scores = [label, (label + number % 4 + 1) % 5], np.array([1.0, 0.0], np.float32)
            context |= {"segment_start_times": [0, 0], "segment_labels": classes, "segment_scores": scores}
        records.append(encode_sequence_example(context, lists))
    write_records(folder / f"{name}.tfrecord", records)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    writers = {"videos": write_tiny, "frames": write_frames, "segments": partial(write_frames, rated=True)}
    for level, write in writers.items():
        (folder / level).mkdir()
        write(folder / level, "train", VIDEOS, 1)
        write(folder / level, "validate", EVALUATED, 2)
    return folder


def level_of(changes: dict[str, Any]) -> str:
    """The folder of the records that these flags are for."""
    if changes.get("segment_labels"):
        return "segments"
    return "frames" if changes.get("frame_features") else "videos"


def flags_for(data: Path, train_dir: Path, **changes: Any) -> Flags:
    level = data / level_of(changes)
    values: dict[str, Any] = {
        "train_dir": str(train_dir),
        "train_data_pattern": str(level / "train*"),
        "feature_names": "mean_rgb,mean_audio",
        "feature_sizes": "6,2",
        "num_classes": 5,
        "model": "MoeModel",
        "batch_size": HALF,
        "cache_dir": str(data / "cache"),
        "num_readers": 1,
        "device": "cpu",
    }
    return Flags(**(values | EXACT | SMALL | changes))


def weights(train_dir: Path, step: int, file: str = "model") -> dict[str, torch.Tensor]:
    return load_file(checkpoint.steps_of(train_dir)[step] / f"{file}.safetensors")


def log(train_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (train_dir / "log.jsonl").read_text().splitlines()]


# ---- the same run


def comparable(data: Path, folder: Path, models: dict[str, dict[str, Any]]) -> dict[str, Flags]:
    """Runs of 20 steps, evaluated at step 10 and at the end."""
    runs = {}
    for name, changes in models.items():
        validate = str(data / level_of(changes) / "validate*")
        evaluation = {"export_model_steps": 10, "eval_data_pattern": validate}
        runs[name] = flags_for(data, folder / name, **({"model": name} | evaluation | changes))
    return runs


def same_as_one_process(flags: Flags, train_dir: Path) -> None:
    """Compare with one process that takes the whole batch: weights, and everything in the log."""
    whole = replace(flags, train_dir=str(train_dir), batch_size=2 * HALF)
    assert train(whole).step == 20
    for file in ("model", "averaged") if whole.ema_decay else ("model",):
        theirs = weights(Path(flags.train_dir), 20, file)
        for key, value in weights(train_dir, 20, file).items():
            torch.testing.assert_close(
                theirs[key], value, atol=1e-5, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
            )
    for mine, its in zip(log(Path(flags.train_dir)), log(train_dir), strict=True):
        mine.pop("examples_per_second", None)
        its.pop("examples_per_second", None)
        for key, value in its.items():
            assert mine[key] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), key


class Made:
    """Runs that two processes have made, one after the other."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.folder = folder
        self.flags = comparable(data, folder, MODELS)
        self.flags["half"] = flags_for(data, folder / "half", num_epochs=2, max_steps=10)
        self.flags["misspelt"] = flags_for(data, folder / "misspelt", model="MoModel")
        evaluated = str(data / "videos" / "validate*")
        unlike = UNLIKE | {"other evaluation": {"eval_data_pattern": str(data / "videos" / "train*")}}
        for name in unlike:
            self.flags[name] = flags_for(data, folder / name, eval_data_pattern=evaluated)
        self.flags["after all that"] = flags_for(data, folder / "after", max_steps=1)
        self.first, self.second = make_runs(self.flags, 2, folder, unlike)


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(data, tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("name", MODELS)
def test_twenty_steps_are_those_of_one_process_with_twice_the_batch(
    made: Made, tmp_path: Path, name: str
) -> None:
    assert (made.first[name], made.second[name]) == ("finished", "finished")
    same_as_one_process(made.flags[name], tmp_path)


@pytest.mark.slow
def test_so_are_those_of_every_other_model_and_of_a_compiled_step(data: Path, tmp_path: Path) -> None:
    if not compiler_found(torch.device("cpu")):
        pytest.skip("no C++ compiler here")
    runs = comparable(data, tmp_path, OTHER_MODELS)
    for outcome in make_runs(runs, 2, tmp_path):
        assert outcome == dict.fromkeys(runs, "finished")
    for name, flags in runs.items():
        same_as_one_process(flags, tmp_path / f"whole {name}")


def test_one_process_writes_and_speaks(made: Made) -> None:
    assert "trained to step 20" in said(made.folder, 0)
    lines = [line for line in said(made.folder, 1).splitlines() if not line.startswith(" ")]
    assert [line for line in lines if "Warning" not in line] == []


def test_the_same_run_goes_on_with_another_number_of_processes(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made.first["half"] == "finished"
    state = checkpoint.read_state(checkpoint.steps_of(made.folder / "half")[10])
    assert (state["processes"], state["examples"]) == (2, 320)
    result = train(replace(made.flags["half"], max_steps=None))
    expected = "had 2 processes, now 1: a step now takes 16 videos, before 32"
    assert expected in capsys.readouterr().err
    assert result.step == 10 + -(-(2 * VIDEOS - 320) // HALF)  # every video twice, whoever has seen it
    assert log(made.folder / "half")[-1]["examples"] == 2 * VIDEOS


def test_an_error_of_all_is_said_by_the_first(made: Made) -> None:
    assert made.first["misspelt"].startswith("FlagError: --model='MoModel' is not known")
    assert made.second["misspelt"] == "SystemExit: 1"


def test_processes_that_are_given_other_flags_are_told(made: Made) -> None:
    assert made.first["other batch"].startswith(
        "FlagError: --batch_size is 16 in process 0 and 8 in process 1. All processes of a run must be given"
    )
    assert made.second["other batch"] == "SystemExit: 1"


def test_processes_must_evaluate_on_the_same_files(made: Made) -> None:
    assert made.first["other evaluation"].startswith("FlagError: the hash of the files to evaluate on is '")
    assert made.second["other evaluation"] == "SystemExit: 1"


def test_an_error_of_one_ends_the_others_with_its_words(made: Made) -> None:
    assert made.second["no file"].startswith("ValueError: --train_data_pattern='/nowhere/*.tfrecord'")
    assert made.first["no file"].startswith("ProcessError: process 1 of 2 (pid ")
    assert ") has ended: ValueError: --train_data_pattern='/nowhere/*.tfrecord'" in made.first["no file"]
    assert made.first["no file"].endswith("; there is no checkpoint yet, the same command begins anew")
    assert (made.first["after all that"], made.second["after all that"]) == ("finished", "finished")


# ---- ends


@pytest.fixture
def long_run(data: Path, tmp_path: Path) -> Iterator[tuple[Flags, list[Process]]]:
    """Two processes that train for minutes, and have saved a checkpoint."""
    flags = flags_for(data, tmp_path / "run", model="LogisticModel", num_epochs=5000, export_model_steps=20)
    processes = start(command(flags), 2, tmp_path)
    try:
        wait_for(lambda: bool(checkpoint.steps_of(tmp_path / "run")))
        yield flags, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_killed_process_ends_the_run_and_nothing_is_lost(
    long_run: tuple[Flags, list[Process]], tmp_path: Path
) -> None:
    flags, (first, second) = long_run
    second.kill()
    # nobody waits for the killed one yet, so it is a zombie, as with a launcher that is slow
    assert first.wait(timeout=60) == 1
    step, folder = max(checkpoint.steps_of(tmp_path / "run").items())
    assert said(tmp_path, 0).splitlines()[-1] == (
        f"expertise: process 1 of 2 (pid {second.pid}) has ended; the last checkpoint is {folder} (step "
        f"{step}), the same command goes on from there"
    )
    assert not list((tmp_path / "run").rglob("*.part"))
    assert checkpoint.read_state(folder)["step"] == step
    assert train(replace(flags, max_steps=step + 2)).step == step + 2


@pytest.mark.slow
def test_a_stopped_process_ends_the_run(long_run: tuple[Flags, list[Process]], tmp_path: Path) -> None:
    _, (first, second) = long_run
    second.send_signal(signal.SIGSTOP)
    assert first.wait(timeout=60) == 1
    assert f"process 1 of 2 (pid {second.pid}) has not answered for 30 seconds" in said(tmp_path, 0)


WAIT = """
import sys, time
from pathlib import Path
from expertise.youtube8m.flags import Flags
from expertise.youtube8m.launch import joined
folder = Path(sys.argv[1])
with joined(Flags(train_data_pattern="x", train_dir=sys.argv[1], device="cpu")) as processes:
    (folder / f"joined{processes.rank}").touch()
    with processes.one_by_one():
        time.sleep(600.0)  # the first one converts
"""


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[list[Process]]:
    """Two processes, the second of which waits for what the first does for minutes."""
    processes = start(["-c", WAIT, str(tmp_path)], 2, tmp_path)
    try:
        wait_for(lambda: all((tmp_path / f"joined{rank}").exists() for rank in (0, 1)))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_who_waits_and_who_is_waited_for_miss_each_other(
    waiting: list[Process], tmp_path: Path, killed: int
) -> None:
    waiting[killed].kill()
    assert waiting[1 - killed].wait(timeout=30) == 1
    expected = f"ProcessError: process {killed} of 2 (pid {waiting[killed].pid}) has ended"
    assert expected in said(tmp_path, 1 - killed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_ends_the_wait_at_once(waiting: list[Process], tmp_path: Path, number: int) -> None:
    for process in waiting:
        process.send_signal(number)
    for process in waiting:
        assert process.wait(timeout=30) != 0
    # the signals come one after the other, so one of them may see the other leave before it hears its own
    assert any("has ended" not in said(tmp_path, rank) for rank in range(len(waiting)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_stops_all_at_one_step(data: Path, tmp_path: Path, number: int) -> None:
    flags = flags_for(data, tmp_path / "run", num_epochs=5000, export_model_steps=20)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command(flags)]
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen([sys.executable, *torchrun], stdout=output, stderr=output)
    try:
        wait_for(lambda: bool(checkpoint.steps_of(tmp_path / "run")))
        process.send_signal(number)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "output.txt").read_text()
    step = max(checkpoint.steps_of(tmp_path / "run"))
    assert text.count("interrupted; step") == text.count(f"interrupted; step {step} is saved") == 1
    assert "expertise: process" not in text
    assert log(tmp_path / "run")[-1]["step"] == step


@pytest.mark.slow
def test_num_gpu_starts_a_process_for_each(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # the children find that there is no GPU, and work on the CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    flags = flags_for(data, tmp_path / "run", num_gpu=2, device="auto", max_steps=3)
    result = train(flags)
    assert (result.step, result.finished) == (3, True)
    assert checkpoint.read_state(checkpoint.steps_of(tmp_path / "run")[3])["processes"] == 2
    with pytest.raises(ProcessError, match=r"training has failed, see above; ended have process 0 of 2 with"):
        train(replace(flags, batch_size=8))
    assert capfd.readouterr().err.count("can't go on with other flags: --batch_size was 16, now 8") == 1


LAUNCH = """
import sys, torch
torch.cuda.device_count = lambda: 2  # the children find that there is none
from expertise.cli import main
main(["youtube8m", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_the_processes_of_num_gpu_do_not_outlive_who_started_them(data: Path, tmp_path: Path) -> None:
    changes = {"num_gpu": 2, "device": "auto", "num_epochs": 5000, "export_model_steps": 20}
    flags = flags_for(data, tmp_path / "run", model="LogisticModel", **changes)
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCH, "train", *arguments(flags)])
    try:
        wait_for(lambda: bool(checkpoint.steps_of(tmp_path / "run")))
        listed = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        children = {int(pid): _watch._stat(int(pid)) for pid in listed}
    finally:
        launcher.kill()
        launcher.wait()
    assert len(children) == 2
    here = Peer.here(0)
    orphans = [Peer(1, here.host, here.machine, pid, started) for pid, (_, started) in children.items()]
    wait_for(lambda: all(orphan.has_ended for orphan in orphans))


# ---- --num_gpu


def test_num_gpu_without_gpus_is_ignored_and_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train(flags_for(data, tmp_path, num_gpu=2, device="auto", max_steps=1)).finished
    assert "--num_gpu=2 is ignored: torch finds no GPU here" in capsys.readouterr().err
    assert train(flags_for(data, tmp_path, num_gpu=3, max_steps=1)).finished
    assert "--num_gpu=3 is ignored: --device=cpu" in capsys.readouterr().err


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpus_to_use(Flags(num_gpu=2)) == 2
    assert gpus_to_use(Flags(num_gpu=3, device="cpu")) == 1
    with pytest.raises(FlagError, match=r"--num_gpu=3: torch finds 2 GPUs here; give at most 2"):
        gpus_to_use(Flags(num_gpu=3))
    monkeypatch.setenv("RANK", "0")  # torchrun has decided
    assert gpus_to_use(Flags(num_gpu=3)) == 1


def test_flags_reach_the_processes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = Flags(
        train_data_pattern="a b/*.tfrecord,-c",
        frame_features=True,
        sample_random_frames=False,
        max_steps=7,
        base_learning_rate=1e-7,
        num_gpu=2,
    )
    seen: list[Flags] = []
    monkeypatch.setitem(cli.youtube8m._RUN, "train", lambda given: seen.append(given) or 0)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["youtube8m", "train", *launch._arguments(flags)])
    assert [asdict(one) for one in seen] == [asdict(flags)]


# ---- one process


def test_one_process_needs_nobody() -> None:
    alone = Processes.one(torch.device("cpu"))
    assert alone.part == (0, 1)
    assert alone.collect("x") == ["x"]
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.total(torch.tensor(2.0)).item() == 2.0
    alone.agree({"--a": 1})
    with alone.one_by_one():
        alone.wait()
    layer = torch.nn.Linear(1, 1)
    assert alone.wrap(layer) is layer


# ---- the watch

LOOK = 0.02


class Beating(HashStore):
    """A store in which process 1 has always beaten anew when somebody looks, until it beats no more."""

    def __init__(self) -> None:
        super().__init__()
        self.beats, self.looks = True, 0

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.looks += 1
        if self.beats:
            self.set("beat/1", str(self.looks))
        return super().multi_get(keys)


class Looked:
    """A watch of rank 0 over one other process, in a store of this process."""

    def __init__(self, peer: Peer, store: HashStore | None = None, parent: int = 0) -> None:
        self.store = store or HashStore()
        peers = [Peer.here(0), peer]
        for one in peers:
            Watch.announce(self.store, one)
        self.watch = Watch(
            self.store,
            peers,
            0,
            lambda finding: f"{finding}; advice",
            wakes=False,
            parent=parent,
            look_seconds=LOOK,
            silent_looks=10,
            grace_seconds=30.0,
        )


@pytest.fixture
def look() -> Iterator[Callable[..., Looked]]:
    made: list[Looked] = []

    def look(peer: Peer, store: HashStore | None = None) -> Looked:
        made.append(Looked(peer, store))
        made[-1].watch.start()
        return made[-1]

    yield look
    for one in made:
        one.watch.stop()


@pytest.fixture
def sleeper() -> Iterator[tuple[Peer, Process]]:
    """A process that does nothing; its beats never change."""
    process = subprocess.Popen(["sleep", "100"])
    state, started = _watch._stat(process.pid)
    assert state
    here = Peer.here(0)
    yield Peer(1, here.host, here.machine, process.pid, started), process
    process.kill()
    process.wait()


def test_a_busy_process_on_this_machine_is_not_missed(
    look: Callable[[Peer], Looked], sleeper: tuple[Peer, Process]
) -> None:
    assert look(sleeper[0]).watch.finding(40 * LOOK) == ""


def test_a_process_that_has_ended_is_found(
    look: Callable[[Peer], Looked], sleeper: tuple[Peer, Process]
) -> None:
    peer, process = sleeper
    watch = look(peer).watch
    process.kill()
    assert watch.finding(60.0) == f"process 1 of 2 (pid {peer.pid}) has ended"


def test_a_process_id_that_was_given_again_is_another_process(
    look: Callable[[Peer], Looked], sleeper: tuple[Peer, Process]
) -> None:
    assert look(replace(sleeper[0], started="1")).watch.finding(60.0).endswith("has ended")


def test_a_stopped_process_is_found_and_one_that_goes_on_is_not(sleeper: tuple[Peer, Process]) -> None:
    peer, process = sleeper
    watch = Looked(peer).watch  # which does not look by itself, so that the looks can be counted

    def looks(times: int) -> list[str]:
        return [watch._judged([]) for _ in range(times)]

    def told(number: int, stopped: bool) -> None:
        process.send_signal(number)
        wait_for(lambda: peer.is_stopped == stopped)

    told(signal.SIGSTOP, stopped=True)
    assert looks(9) == [""] * 9
    told(signal.SIGCONT, stopped=False)
    assert looks(20) == [""] * 20
    told(signal.SIGSTOP, stopped=True)
    assert looks(10) == [*[""] * 9, f"process 1 of 2 (pid {peer.pid}) has not answered for 0.2 seconds"]


def test_a_process_on_another_machine_is_known_by_its_beats(look: Callable[..., Looked]) -> None:
    store = Beating()
    watch = look(Peer(1, "elsewhere", "another machine", 1, "1"), store).watch
    wait_for(lambda: store.looks > 30)
    assert watch.finding(0.0) == ""
    store.beats = False
    assert watch.finding(60.0) == ("process 1 of 2 (pid 1 on elsewhere) has not answered for 0.2 seconds")


def test_the_end_of_the_process_that_started_the_run_is_found(sleeper: tuple[Peer, Process]) -> None:
    peer, _ = sleeper  # lives
    assert Looked(peer, parent=os.getppid()).watch._judged([]) == ""
    finding = Looked(peer, parent=os.getppid() + 1).watch._judged([])
    assert finding == f"the process that started the run (pid {os.getppid() + 1}) has ended"


def test_who_has_said_goodbye_is_not_missed(
    look: Callable[[Peer], Looked], sleeper: tuple[Peer, Process]
) -> None:
    peer, process = sleeper
    looked = look(peer)
    looked.store.set("left/1", json.dumps(asdict(Farewell())))
    assert looked.watch.farewell(1, 0.0) == Farewell()
    process.kill()
    assert looked.watch.finding(20 * LOOK) == ""


def test_what_another_has_found_is_taken_over(
    look: Callable[[Peer], Looked], sleeper: tuple[Peer, Process]
) -> None:
    looked = look(sleeper[0])
    looked.store.set("left/1", json.dumps(asdict(Farewell("process 2 of 3 (pid 7) has ended"))))
    assert looked.watch.finding(60.0) == "process 2 of 3 (pid 7) has ended"


class Deaf:
    """A store that does not answer any more."""

    def set_timeout(self, timeout: object) -> None: ...

    def set(self, key: str, value: str) -> None:
        raise RuntimeError("Broken pipe")

    def multi_get(self, keys: list[str]) -> list[bytes]:
        raise RuntimeError("Broken pipe")


@pytest.mark.parametrize("far", [False, True])
def test_a_lost_store_matters_only_among_several_machines(sleeper: tuple[Peer, Process], far: bool) -> None:
    peer = replace(sleeper[0], machine="another") if far else sleeper[0]
    watch = Watch(
        Deaf(),  # type: ignore[arg-type]
        [Peer.here(0), peer],
        0,
        str,
        wakes=False,
        look_seconds=LOOK,
        grace_seconds=30.0,
    )
    watch.start()
    found = watch.finding(60.0 if far else 20 * LOOK)
    watch.leave(Farewell())
    watch.stop()
    assert found == ("the store that the processes share, on the first one's machine, does not answer" * far)


def test_a_process_that_hangs_says_why_and_exits(
    sleeper: tuple[Peer, Process], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    store = HashStore()
    peers = [Peer.here(0), sleeper[0]]
    for peer in peers:
        Watch.announce(store, peer)
    watch = Watch(
        store, peers, 0, lambda text: f"{text}; advice", wakes=True, look_seconds=LOOK, grace_seconds=0.1
    )
    with interruptible() as interrupted:
        watch.start()
        sleeper[1].kill()
        wait_for(lambda: bool(codes))
        assert interrupted.is_set()
    watch.stop()
    assert codes == [1]
    assert f"expertise: process 1 of 2 (pid {sleeper[0].pid}) has ended; advice\n" in capsys.readouterr().err


# ---- signals


def test_a_second_signal_interrupts_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    for number, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
        before = signal.getsignal(number)
        with interruptible() as interrupted:
            assert not interrupted.is_set()
            signal.raise_signal(number)
            assert interrupted.is_set()
            with pytest.raises(error):
                signal.raise_signal(number)
        assert signal.getsignal(number) is before
    assert capsys.readouterr().err.count("stopping after this step") == 1


def test_sigterm_unwinds_a_block_until_it_passes_by() -> None:
    with terminable() as pass_by:
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        pass_by()
        signal.raise_signal(signal.SIGTERM)


def test_signals_that_are_forwarded_do_nothing_else() -> None:
    numbers: list[int] = []
    with forwarded(numbers.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert numbers == [signal.SIGINT, signal.SIGTERM]


def test_the_command_line_that_the_tests_give_is_that_of_the_flags() -> None:
    assert arguments(Flags(max_steps=3)) == launch._arguments(Flags(max_steps=3)) == ["--max_steps=3"]
