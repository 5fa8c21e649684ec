"""The best segments of every class: the submission of the 2019 challenge, or the same as Parquet.

Letters: B segments of a batch, C classes that are listed, n segments seen.
"""

import csv
import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from expertise._optional import require
from expertise.youtube8m._ranking import score_keys, scores_of_keys
from expertise.youtube8m.flags import FlagError
from expertise.youtube8m.videos import pointers, ragged_rows

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

CSV_HEADER = "Class,Segments\n"
_GZIP_LEVEL = 4
_BLOCK_BYTES = 64 << 20  # scores that wait until the lists take them in
_SLACK = 0.25  # a list may grow so much beyond its limit before it is cut
_ROW_GROUP = 32_768  # rows of a Parquet row group, at least
_NUMBER = np.uint64(0xFFFFFFFF)
_UNSAFE = b',"\r\n'


def read_class_ids(path: str | Path, num_classes: int) -> Ints:
    """Read the column Index of a csv: classes, by their place in the vocabulary. They are sorted.

    Raises
    ------
    FlagError : the file is missing, lacks the column, lists no class, or one twice, or one that is not there.
    """
    file, flag = Path(path).expanduser(), f"--segment_label_ids_file={path}"
    if not file.is_file():
        raise FlagError(f"{flag}: there is no such file; give a csv with the column Index")
    found: set[int] = set()
    with file.open(newline="", encoding="utf-8") as lines:
        table = csv.DictReader(lines)
        if "Index" not in (table.fieldnames or ()):
            raise FlagError(f"{flag}: no column Index; there are {table.fieldnames}")
        for row in table:
            text, where = row["Index"] or "", f"{flag}, line {table.line_num}"
            if not text.isdecimal() or int(text) >= num_classes:
                raise FlagError(
                    f"{where}: Index is {text!r}; it must be a class of the model, a whole number from 0 to "
                    f"{num_classes - 1}"
                )
            if int(text) in found:
                raise FlagError(f"{where}: Index {text} stands there twice")
            found.add(int(text))
    if not found:
        raise FlagError(f"{flag} lists no class")
    return np.array(sorted(found), dtype=np.int64)


class Segments(NamedTuple):
    """Segments by number. The id of segment i, "video:start", is ``text[ptr[i]:ptr[i + 1] - 1]``.

    text : uint8, ids in UTF-8, a space behind each. ptr : int64 (n + 1,). starts : int32 (n,).
    video_sizes : int64 (n,), bytes of the part before the colon.
    """

    text: npt.NDArray[np.uint8]
    ptr: Ints
    starts: npt.NDArray[np.int32]
    video_sizes: Ints


class BestSegments:
    """Lists the best segments of each class, over any number of batches.

    Of equal scores the one that came first is the better one. Memory is 10 bytes for each place in a list
    (classes x limit) at most, and some 30 for each segment.

    Parameters
    ----------
    classes : int64 (C,), the classes that are listed: columns of the predictions.
    limit : segments of a class, at most.
    """

    def __init__(self, classes: Ints, limit: int) -> None:
        self.classes, self.limit = classes, limit
        self._lists: list[list[Keys]] = [[] for _ in classes]
        self._sizes = np.zeros(len(classes), dtype=np.int64)
        # a list that is full takes better scores only: of equal ones, it has those that came first
        self._worst = np.full(len(classes), -np.inf, dtype=np.float32)
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._taken_in = 0
        self._ids: list[bytes] = []
        self._id_sizes: list[Ints] = []
        self._starts: list[npt.NDArray[np.int32]] = []
        self.num_segments = 0

    def update(self, ids: Sequence[str], predictions: torch.Tensor) -> None:
        """Add a batch: ids "video:start", and predictions, float32, of all classes.

        Raises
        ------
        ValueError : a prediction is NaN.
        """
        scores_BC = predictions[:, torch.from_numpy(self.classes)].float().cpu().numpy()
        if np.isnan(scores_BC).any():
            raise ValueError(
                "the model predicts NaN: are the features finite, and did its training converge?"
            )
        encoded = [one.encode() for one in ids]
        self._ids.append(b" ".join([*encoded, b""]))
        self._id_sizes.append(np.array([len(one) + 1 for one in encoded], dtype=np.int64))
        self._starts.append(np.array([int(one.rpartition(":")[2]) for one in ids], dtype=np.int32))
        self._waiting.append(scores_BC)
        self.num_segments += len(ids)
        if (self.num_segments - self._taken_in) * max(1, len(self.classes)) * 4 >= _BLOCK_BYTES:
            self._take_in()

    def segments(self) -> Segments:
        """Give all segments seen, which the lists name by their numbers."""
        sizes = np.concatenate([np.empty(0, np.int64), *self._id_sizes])
        starts = np.concatenate([np.empty(0, np.int32), *self._starts])
        digits = np.char.str_len(starts.astype("S")).astype(np.int64)
        text = np.frombuffer(b"".join(self._ids), dtype=np.uint8)
        return Segments(text, pointers(sizes), starts, sizes - digits - 2)

    def lists(self) -> Iterator[tuple[int, Ints, npt.NDArray[np.float32]]]:
        """Yield each class with the numbers of its segments and their scores, best first."""
        self._take_in()
        for place, index in enumerate(self.classes.tolist()):
            keys = np.concatenate([np.empty(0, np.uint64), *self._lists[place]])
            keys.sort()
            keys = keys[: self.limit]
            yield index, (keys & _NUMBER).astype(np.int64), scores_of_keys(keys >> np.uint64(32))

    def _take_in(self) -> None:
        """Put what waits into the lists, and cut those that have grown too long."""
        if not self._waiting:
            return
        columns_CB = np.ascontiguousarray(np.concatenate(self._waiting).T)
        self._waiting.clear()
        for place, scores_B in enumerate(columns_CB):
            better = np.flatnonzero(scores_B > self._worst[place])
            if len(better):
                numbers = (better + self._taken_in).astype(np.uint64)
                self._lists[place].append(score_keys(scores_B[better]) << np.uint64(32) | numbers)
                self._sizes[place] += len(better)
        self._taken_in = self.num_segments
        for place in np.flatnonzero(self._sizes > self.limit * (1 + _SLACK)).tolist():
            keys = np.concatenate(self._lists[place])
            keys.partition(self.limit - 1)
            self._lists[place] = [keys[: self.limit].copy()]
            self._sizes[place] = self.limit
            self._worst[place] = scores_of_keys(keys[self.limit - 1 :][:1] >> np.uint64(32))[0]


def write_csv(file: Path, best: BestSegments, *, zipped: bool) -> None:
    """Write ``class,video:start video:start ...``, a line for each class, under the challenge's header.

    Raises
    ------
    ValueError : an id holds white space, a comma or a quote, which this format can't tell from its own.
    """
    segments = best.segments()
    inside = segments.text.copy()
    inside[segments.ptr[1:] - 1] = ord("x")  # the spaces between them
    if (bad := np.isin(inside, np.frombuffer(_UNSAFE + b" \t", dtype=np.uint8))).any():
        number = int(np.searchsorted(segments.ptr, np.flatnonzero(bad)[0], side="right")) - 1
        name = segments.text[segments.ptr[number] : segments.ptr[number + 1] - 1].tobytes().decode()
        raise ValueError(
            f"the segment {name!r} has white space, a comma or a quote in its id, which the csv of the "
            "challenge can't hold; take --output_format=parquet"
        )
    with (
        file.open("wb") as raw,
        # neither name nor time in the header: the same predictions give the same bytes
        gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, 0) if zipped else nullcontext(raw) as out,
    ):
        out.write(CSV_HEADER.encode())
        for index, numbers, _ in best.lists():
            where, _ = ragged_rows(segments.ptr, numbers)
            out.write(b"%d,%s\n" % (index, segments.text[where].tobytes()[:-1]))


def write_parquet(file: Path, best: BestSegments, *, zipped: bool) -> None:
    """Write a row for each place of a list: class int32, video string, start int32, score float32."""
    assert not zipped
    pa, pq = require("pyarrow", "youtube8m"), require("pyarrow.parquet", "youtube8m")
    kinds = {"class": pa.int32(), "video": pa.string(), "start": pa.int32(), "score": pa.float32()}
    schema = pa.schema(list(kinds.items()))
    segments = best.segments()
    firsts = segments.ptr[:-1]
    held: list[Any] = []

    def batch_of(index: int, numbers: Ints, scores: npt.NDArray[np.float32]) -> Any:
        sizes = segments.video_sizes[numbers]
        ptr = pointers(sizes)
        where = np.arange(ptr[-1]) + np.repeat(firsts[numbers] - ptr[:-1], sizes)
        buffers = (pa.py_buffer(ptr.astype(np.int32)), pa.py_buffer(segments.text[where]))
        videos = pa.StringArray.from_buffers(len(numbers), *buffers)
        classes = np.full(len(numbers), index, dtype=np.int32)
        columns = [pa.array(classes), videos, pa.array(segments.starts[numbers]), pa.array(scores)]
        return pa.record_batch(columns, schema=schema)

    with pq.ParquetWriter(file, schema) as out:
        for index, numbers, scores in best.lists():
            held.append(batch_of(index, numbers, scores))
            if sum(map(len, held)) >= _ROW_GROUP:
                out.write_table(pa.Table.from_batches(held, schema))
                held.clear()
        if held:
            out.write_table(pa.Table.from_batches(held, schema))


SEGMENT_WRITERS: dict[str, Callable[..., None]] = {"csv": write_csv, "parquet": write_parquet}
