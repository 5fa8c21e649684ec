"""Inference: the best classes of every video, as the CSV of the YouTube-8M code or as Parquet.

Letters: B videos of a batch, K classes written for each video.
"""

import gzip
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from expertise._files import atomic_file
from expertise._optional import require
from expertise._progress import progress
from expertise.youtube8m.ensemble import Predictor, load_models, split_paths
from expertise.youtube8m.flag_rules import check, choose
from expertise.youtube8m.flags import FlagError, Flags
from expertise.youtube8m.loading import check_segments, find_export
from expertise.youtube8m.readers import VideoSource, open_videos
from expertise.youtube8m.submission import SEGMENT_WRITERS, BestSegments, read_class_ids
from expertise.youtube8m.videos import FeatureSpec, match_files

Scores = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]
Write = Callable[[Sequence[str], Scores, Classes], None]

CSV_HEADER = "VideoId,LabelConfidencePairs\n"
_GZIP_LEVEL = 4  # a third of the time of level 6, for 2 % more bytes
_ROW_GROUP = 32_768  # videos of a Parquet row group


def infer(flags: Flags) -> int:
    """Write the ``top_k`` best classes of every video of ``flags.input_data_pattern``.

    With ``segment_labels`` it writes the best segments of every class instead, see submission.py.
    The model is ``input_model_tgz`` where that is given, else the newest export of ``train_dir``; of several
    with commas the average. The output appears whole, under its name, at the end; an older file of that name
    is replaced then.

    Returns
    -------
    The number of videos written, or of segments seen.

    Raises
    ------
    FlagError : a flag is wrong, or there is no model.
    RecordError : a record is corrupt.
    CheckpointError : the weights can't be read.
    """
    check(flags, "infer")
    output = Path(flags.output_file).expanduser()
    output_format = _check_output(flags, output)
    files = match_files(flags.input_data_pattern, "input_data_pattern")
    if output.resolve() in {file.resolve() for file in files}:
        raise FlagError(f"--output_file={output} is one of the input files; give another name")
    model = _open_model(flags)
    write = _write_segments if flags.segment_labels else _write_videos
    return write(flags, model, output, output_format)


def _write_videos(flags: Flags, model: Predictor, output: Path, output_format: str) -> int:
    """Write the best classes of each video, and count the videos."""
    top_k = min(flags.top_k, model.flags.num_classes)
    if top_k < flags.top_k:
        print(f"--top_k={flags.top_k}: the model has {top_k} classes, all are written", file=sys.stderr)
    source, total = _open_source(flags, model)
    with (
        atomic_file(output) as part,
        WRITERS[output_format](part, output.suffix == ".gz") as write,
        progress("infer", total, "videos") as meter,
    ):
        videos = write_predictions(model, source, flags.batch_size, top_k, write, advance=meter.advance)
    print(f"wrote the {top_k} best classes of {videos:,} videos to {output}", file=sys.stderr)
    return videos


def _write_segments(flags: Flags, model: Predictor, output: Path, output_format: str) -> int:
    """Write the best segments of each class, and count all segments."""
    C = model.flags.num_classes
    check_segments(model.flags, flags.input_model_tgz or flags.train_dir)
    ids_file = flags.segment_label_ids_file
    best = BestSegments(read_class_ids(ids_file, C) if ids_file else np.arange(C), flags.segment_max_pred)
    source, total = _open_source(flags, model, "all")
    with progress("infer", total, "segments") as meter:
        for batch in source.batches(flags.batch_size):
            best.update(batch.ids, model.predict(batch.features, batch.lengths))
            meter.advance(len(batch.ids))
    with atomic_file(output) as part:
        SEGMENT_WRITERS[output_format](part, best, zipped=output.suffix == ".gz")
    each = min(flags.segment_max_pred, best.num_segments)
    print(
        f"wrote the {each:,} best of {best.num_segments:,} segments for each of {len(best.classes):,} "
        f"classes to {output}",
        file=sys.stderr,
    )
    return best.num_segments


def _open_source(
    flags: Flags, model: Predictor, segments: Literal["", "all"] = ""
) -> tuple[VideoSource, int | None]:
    """Open what is to be predicted, and count it where that costs nothing."""
    source = open_videos(
        flags.input_data_pattern,
        FeatureSpec(model.flags.feature_names, model.flags.feature_sizes),
        model.flags.num_classes,
        frames=model.flags.reading(segments),
        cache_dir=flags.cache_dir,
        num_readers=flags.num_readers,
        skip_corrupt=flags.skip_corrupt_records,
        flag="input_data_pattern",
    )
    # without a cache all files would be read only to count their videos
    return source, None if flags.cache_dir == "none" else source.num_videos


def write_predictions(
    model: Predictor,
    source: VideoSource,
    batch_size: int,
    top_k: int,
    write: Write,
    *,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Give ``write`` the ids, scores (B, K) and classes (B, K) of each batch, best first; count the videos.

    A batch is written while the next one is computed.
    """
    videos = 0
    with ThreadPoolExecutor(1) as pool:
        writing: Future[None] | None = None
        for batch in source.batches(batch_size):
            scores_BK, classes_BK = best_classes(model.predict(batch.features, batch.lengths), top_k)
            if writing is not None:
                writing.result()
            writing = pool.submit(write, batch.ids, scores_BK, classes_BK)
            videos += len(batch.ids)
            if advance is not None:
                advance(len(batch.ids))
        if writing is not None:
            writing.result()
    return videos


def best_classes(predictions_BC: torch.Tensor, top_k: int) -> tuple[Scores, Classes]:
    """Return the ``top_k`` best scores of each row, descending, and their classes.

    Raises
    ------
    ValueError : a prediction is NaN.
    """
    scores_BK, classes_BK = torch.topk(predictions_BC, top_k, dim=1)
    if bool(scores_BK[:, 0].isnan().any()):  # topk puts NaN first
        raise ValueError("the model predicts NaN: are the features finite, and did its training converge?")
    return scores_BK.numpy(), classes_BK.numpy()


def format_lines(ids: Sequence[str], scores_BK: Scores, classes_BK: Classes) -> str:
    """Format ``id,class score class score ...``, a line for each video.

    >>> format_lines(["ab01"], np.array([[0.75, 1e-5]], dtype=np.float32), np.array([[7, 12]]))
    'ab01,7 0.75 12 1e-05\\n'
    """
    B, K = scores_BK.shape
    cells = np.empty((B, 1 + 2 * K), dtype=object)
    cells[:, 0] = [_csv_field(video) for video in ids]
    cells[:, 1::2] = classes_BK
    cells[:, 2::2] = scores_BK
    line = "%s," + " ".join(["%i %g"] * K) + "\n"
    text: str = (line * B) % tuple(cells.ravel().tolist())  # once for all lines: the fastest that was tried
    return text


def _csv_field(text: str) -> str:
    if not any(sign in text for sign in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


@contextmanager
def _csv(file: Path, zipped: bool) -> Iterator[Write]:
    """Lines of `format_lines` under the reference's header."""
    with (
        file.open("wb") as raw,
        # neither name nor time in the header: the same predictions give the same bytes
        gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, 0) if zipped else nullcontext(raw) as out,
    ):
        out.write(CSV_HEADER.encode())

        def write(ids: Sequence[str], scores_BK: Scores, classes_BK: Classes) -> None:
            out.write(format_lines(ids, scores_BK, classes_BK).encode())

        yield write


@contextmanager
def _parquet(file: Path, zipped: bool) -> Iterator[Write]:
    """Columns id string, labels list<int32>, scores list<float32>."""
    assert not zipped
    pa, pq = require("pyarrow", "youtube8m"), require("pyarrow.parquet", "youtube8m")
    schema = pa.schema(
        [("id", pa.string()), ("labels", pa.list_(pa.int32())), ("scores", pa.list_(pa.float32()))]
    )
    held: list[Any] = []

    with pq.ParquetWriter(file, schema) as out:

        def flush() -> None:
            if held:
                out.write_table(pa.Table.from_batches(held, schema))
                held.clear()

        def write(ids: Sequence[str], scores_BK: Scores, classes_BK: Classes) -> None:
            B, K = scores_BK.shape
            ends = pa.array(np.arange(0, (B + 1) * K, K, dtype=np.int32))
            columns = [
                pa.array(ids, pa.string()),
                pa.ListArray.from_arrays(ends, pa.array(classes_BK.ravel().astype(np.int32))),
                pa.ListArray.from_arrays(ends, pa.array(scores_BK.ravel())),
            ]
            held.append(pa.record_batch(columns, schema=schema))
            if sum(map(len, held)) >= _ROW_GROUP:
                flush()

        yield write
        flush()


WRITERS: dict[str, Callable[[Path, bool], AbstractContextManager[Write]]] = {"csv": _csv, "parquet": _parquet}


def _check_output(flags: Flags, output: Path) -> str:
    """Give the format of the output; raise FlagError where the flags of the output do not fit each other."""
    if output.is_dir():
        raise FlagError(f"--output_file={flags.output_file} is a folder; give the name of a file")
    by_name = "parquet" if ".parquet" in output.suffixes else "csv"
    output_format = flags.output_format or by_name
    choose("output_format", output_format, WRITERS)
    if output_format == "parquet" and output.suffix == ".gz":
        raise FlagError(
            f"--output_file={flags.output_file}: Parquet is compressed inside; give a name without .gz"
        )
    if flags.segment_label_ids_file and not flags.segment_labels:
        raise FlagError(
            f"--segment_label_ids_file={flags.segment_label_ids_file} lists classes of segments; give "
            "--segment_labels too"
        )
    return output_format


def _open_model(flags: Flags) -> Predictor:
    """Load the model, or several; write a single one as an archive too where that is asked for."""
    if flags.input_model_tgz:
        archives = [Path(path).expanduser() for path in split_paths(flags.input_model_tgz)]
        for archive in archives:
            if not archive.is_file():
                raise FlagError(f"--input_model_tgz={archive}: there is no such file")
        if flags.output_model_tgz:
            raise FlagError(
                "--output_model_tgz with --input_model_tgz would copy an archive; leave one of them out"
            )
        paths, flag = ",".join(map(str, archives)), "input_model_tgz"
    else:
        paths, flag = flags.train_dir, "train_dir"
        if flags.output_model_tgz:
            if len(split_paths(paths)) > 1:
                raise FlagError(f"--output_model_tgz writes one model, but --train_dir={paths} names several")
            paths = str(find_export(paths)[0])
    model = load_models(paths, device=flags.device, precision=flags.precision, flag=flag)
    if flags.output_model_tgz:
        write_model_tgz(Path(paths), Path(flags.output_model_tgz).expanduser())
        print(f"wrote the model to {flags.output_model_tgz}", file=sys.stderr)
    return model


def write_model_tgz(folder: Path, archive: Path) -> None:
    """Write the files of an export as a .tgz, whole or not at all; the same files give the same bytes."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o644
        return member

    with (
        atomic_file(archive) as part,
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, 0) as zipped,  # weights hardly shrink at any level
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name in ("model_flags.json", "model.safetensors"):
            tar.add(folder / name, arcname=f"{folder.name}/{name}", filter=plain)
