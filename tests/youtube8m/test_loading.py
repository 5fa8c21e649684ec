"""Loading a trained model: from a run, an export, an archive; and never running what it reads."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expertise.youtube8m import load_model, read_batches
from expertise.youtube8m.checkpoint import CheckpointError
from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.frames import dequantize, frame_mask
from expertise.youtube8m.loading import Classifier, prepare
from expertise.youtube8m.models import MoeModel, l2_normalize
from expertise.youtube8m.train import train


@pytest.fixture(scope="module")
def run(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(tiny.flags(folder, max_steps=6, export_model_steps=3, moe_rank=4))
    return folder


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_a_run_gives_its_newest_export(run: Path) -> None:
    newest, older = load_model(run), load_model(run / "export" / "step_3")
    assert (newest.step, older.step) == (6, 3)
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    assert torch.equal(newest.predict(x), load_model(run / "export" / "step_6").predict(x))
    assert not torch.equal(newest.predict(x), older.predict(x))


def test_an_archive_gives_the_same(run: Path, tmp_path: Path) -> None:
    files = {f"model/{f.name}": f.read_bytes() for f in (run / "export" / "step_6").iterdir()}
    x = torch.randn(5, 8)
    loaded = load_model(archive(tmp_path / "model.tgz", files))
    assert torch.equal(loaded.predict(x), load_model(run).predict(x))


def test_predict_normalises_and_explain_agrees(run: Path) -> None:
    model = load_model(run)
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    p = model.predict(x)
    assert p.shape == (7, 5)
    torch.testing.assert_close(p, model.predict(100 * x), atol=1e-6, rtol=0)
    told = model.explain(x)
    np.testing.assert_allclose(told.gate_weights.sum(axis=2), 1, atol=1e-6)
    pooled = (told.gate_weights[..., :-1] * told.expert_votes).sum(axis=2)
    np.testing.assert_allclose(pooled, p.numpy(), atol=1e-6)
    np.testing.assert_allclose(told.probabilities, p.numpy(), atol=1e-6)


def test_one_video_gives_what_a_batch_of_1024_gives(run: Path) -> None:
    model = load_model(run)
    x = torch.randn(1024, 8, generator=torch.Generator().manual_seed(0))
    together = model.predict(x)
    single = torch.cat([model.predict(x[i : i + 1]) for i in range(0, 1024, 64)])
    torch.testing.assert_close(single, together[::64], atol=1e-6, rtol=0)


def test_one_real_sized_video_gives_what_a_batch_gives() -> None:
    model = MoeModel(1152, 3862)
    model.reset(torch.Generator().manual_seed(0), 30.0)
    x = torch.randn(1024, 1152, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = Classifier(model)(x)
        single = torch.cat([Classifier(model)(x[i : i + 1]) for i in (0, 500, 1023)])
    torch.testing.assert_close(single, together[[0, 500, 1023]], atol=1e-6, rtol=0)


def test_read_batches_feed_predict(run: Path, tiny: Any) -> None:
    model = load_model(run)
    names = {"feature_names": "mean_rgb,mean_audio", "feature_sizes": "6,2", "num_classes": 5}
    batches = list(read_batches(tiny.validate, batch_size=64, cache_dir="none", **names))
    rows = [model.predict(batch.features) for batch in batches]
    assert [len(row) for row in rows] == [64, 64, 64, 8]
    first = model.predict(l2_normalize(batches[0].features[:1]))
    torch.testing.assert_close(rows[0][:1], first, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(8,), (3, 7), (2, 3, 8)])
def test_features_of_a_wrong_shape(run: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"this model takes \(videos, 8\): mean_rgb 6, mean_audio 2"):
        load_model(run).predict(torch.zeros(shape))


def test_what_is_not_a_model(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FlagError, match="has no export yet"):
        load_model(tmp_path)
    with pytest.raises(FlagError, match="does not exist"):
        load_model(tmp_path / "none")
    (tmp_path / "not.tgz").write_bytes(b"nothing of the kind")
    with pytest.raises(FlagError, match=r"can't be unpacked: [^\n]+; give what --output_model_tgz wrote$"):
        load_model(tmp_path / "not.tgz")
    flags = (run / "export" / "step_6" / "model_flags.json").read_bytes()
    with pytest.raises(FlagError, match=r"holds no model\.safetensors"):
        load_model(archive(tmp_path / "half.tgz", {"model_flags.json": flags}))


def test_an_archive_can_not_write_elsewhere(run: Path, tmp_path: Path) -> None:
    files = {f.name: f.read_bytes() for f in (run / "export" / "step_6").iterdir()}
    evil = {"../../escaped.txt": b"x", "/tmp/expertise-escaped.txt": b"x", **files}
    load_model(archive(tmp_path / "evil.tgz", evil))
    assert not Path("/tmp/expertise-escaped.txt").exists()
    assert not list(tmp_path.parent.rglob("escaped.txt"))


def test_pickled_weights_are_not_read(run: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    flags = (run / "export" / "step_6" / "model_flags.json").read_bytes()
    evil = archive(
        tmp_path / "evil.tgz", {"model_flags.json": flags, "model.safetensors": pickle.dumps(Evil())}
    )
    with pytest.raises(CheckpointError, match="can't be read"):
        load_model(evil)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model(run: Path, tmp_path: Path) -> None:
    files = {f.name: f.read_bytes() for f in (run / "export" / "step_6").iterdir()}
    files["model_flags.json"] = files["model_flags.json"].replace(b'"num_classes": 5', b'"num_classes": 6')
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_model(archive(tmp_path / "other.tgz", files))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"num_classes": 5', b'"num_classes": "5"'),
        (b'"num_classes": 5', b'"num_classes": -3'),
        (b'"num_classes": 5', b'"num_classes": 10000000000000'),
        (b'"moe_rank": 4', b'"moe_rank": -1'),
        (b'"input_scale": 0', b'"input_scale": 1e999, "x": 0'),
        (b'"label_loss": "Cross', b'"label_loss": "Crass'),
    ],
)
def test_flags_that_can_not_be_are_named(run: Path, tmp_path: Path, before: bytes, after: bytes) -> None:
    files = {f.name: f.read_bytes() for f in (run / "export" / "step_6").iterdir()}
    assert before in files["model_flags.json"]
    files["model_flags.json"] = files["model_flags.json"].replace(before, after)
    with pytest.raises(FlagError, match=r"does not hold the flags of a model|is not known"):
        load_model(archive(tmp_path / "wrong.tgz", files))


def test_flags_that_claim_a_huge_model_take_no_memory(run: Path, tmp_path: Path) -> None:
    files = {f.name: f.read_bytes() for f in (run / "export" / "step_6").iterdir()}
    huge = files["model_flags.json"].replace(b'"num_classes": 5', b'"num_classes": 2000000000')
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_model(archive(tmp_path / "huge.tgz", {**files, "model_flags.json": huge}))


def test_a_name_that_comes_twice_in_an_archive_is_refused(run: Path, tmp_path: Path) -> None:
    files = {
        f"{place}/{f.name}": f.read_bytes() for f in (run / "export" / "step_6").iterdir() for place in "ab"
    }
    with pytest.raises(FlagError, match="can't be unpacked"):
        load_model(archive(tmp_path / "twice.tgz", files))


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), max_size=4), quantised=st.booleans(), seed=st.integers(0, 100))
def test_frames_are_prepared_one_by_one_as_all_together(
    lengths: list[int], quantised: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (len(lengths), 6, 5), generator=generator, dtype=torch.uint8)
    if not quantised:
        frames = torch.randn(frames.shape, generator=generator)
        frames[:, :1] = 0.0  # no length to divide by
    x_BLD, same = prepare(frames, torch.tensor(lengths, dtype=torch.int64))
    assert same.tolist() == lengths
    assert x_BLD.dtype == torch.float32
    plain = l2_normalize(dequantize(frames)) * frame_mask(same, 6).unsqueeze(-1)
    torch.testing.assert_close(x_BLD, plain, atol=1e-6, rtol=1e-5)
    assert not x_BLD[~frame_mask(same, 6)].any()
