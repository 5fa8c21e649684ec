"""The four metrics: the reference's own values, slow twins, and what must not change them."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from expertise.youtube8m.metrics import VideoMetrics


def measured(predictions: Any, labels: Any, top_k: int = 20, cuts: tuple[int, ...] = ()) -> VideoMetrics:
    metrics = VideoMetrics(np.shape(predictions)[1], top_k)
    edges = [0, *cuts, len(predictions)]
    for start, end in itertools.pairwise(edges):
        metrics.update(predictions[start:end], labels[start:end])
    return metrics


def close(one: dict[str, float], other: dict[str, float]) -> None:
    assert one == pytest.approx(other, abs=1e-12)


def random_case(seed: int, B: int = 23, C: int = 37, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random((B, C)) < share
    labels[0, 0] = True
    return rng.random((B, C)), labels


@pytest.fixture(scope="module")
def cases(reference_dir: Path) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    folder = reference_dir / "youtube8m"
    inputs = np.load(folder / "metrics_inputs.npz")
    known = json.loads((folder / "metrics_expected.json").read_text())["cases"]
    return [(case, inputs[f"P{i}"], inputs[f"L{i}"]) for i, case in enumerate(known)]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_equal_to_the_reference_code(cases: list[Any], number: int, make: Any) -> None:
    case, predictions, labels = cases[number]
    cuts = tuple(itertools.accumulate(case["batches"]))[:-1]
    for top_k, key in ((20, "top20"), (5, "top5"), (case["C"], "topC")):
        metrics = measured(make(predictions), make(labels), top_k, cuts)
        found, known = metrics.compute(), case["expected"]
        assert found["gap"] == pytest.approx(known[f"gap_{key}"], abs=1e-6)
        assert found["map"] == pytest.approx(known[f"map_{key}"], abs=1e-6)
        assert found["hit_at_1"] == pytest.approx(known["hit_at_1"], abs=1e-6)
        assert found["perr"] == pytest.approx(known["perr"], abs=1e-6)
        assert found["num_classes_in_map"] == known["num_classes_in_map"]
        assert found["num_videos"] == case["N"]


@pytest.mark.parametrize("number", [0, 1])
def test_average_precision_of_each_class_as_in_the_reference_code(cases: list[Any], number: int) -> None:
    case, predictions, labels = cases[number]
    average_precision, positives = measured(predictions, labels).per_class()
    known = {int(c): ap for c, ap in case["expected"]["aps_top20_by_class"].items()}
    assert set(np.flatnonzero(positives)) == set(known) == set(np.flatnonzero(~np.isnan(average_precision)))
    assert {c: average_precision[c] for c in known} == pytest.approx(known, abs=1e-6)
    assert positives.sum() == case["num_labels"]


@st.composite
def tie_free(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, list[int]]:
    B, C = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    order = draw(st.permutations(range(B * C)))
    # some scores are not above 0: PERR does not count these
    scores = (np.array(order, dtype=np.float64).reshape(B, C) - draw(st.integers(0, 5))) / (B * C)
    labels = np.array(draw(st.lists(st.booleans(), min_size=B * C, max_size=B * C))).reshape(B, C)
    labels[draw(st.integers(0, B - 1)), draw(st.integers(0, C - 1))] = True
    cuts = sorted(draw(st.lists(st.integers(0, B), max_size=3)))
    return scores, labels, draw(st.integers(1, 14)), cuts


@settings(max_examples=150, deadline=None)
@given(tie_free(), st.sampled_from([np.float32, np.float64]))
def test_equal_to_the_slow_twins(case: tuple[np.ndarray, np.ndarray, int, list[int]], kind: type) -> None:
    scores, labels, top_k, cuts = case
    scores = scores.astype(kind)
    metrics = measured(scores, labels, top_k, tuple(cuts))
    by_class = reference.class_average_precisions(scores, labels, top_k)
    close(
        metrics.compute(),
        {
            "hit_at_1": reference.hit_at_1(scores, labels),
            "perr": reference.perr(scores, labels),
            "map": sum(by_class.values()) / len(by_class),
            "gap": reference.gap(scores, labels, top_k),
            "num_classes_in_map": len(by_class),
            "num_videos": len(scores),
        },
    )
    average_precision = metrics.per_class().average_precision
    assert {c: average_precision[c] for c in by_class} == pytest.approx(by_class, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equal_scores_count_with_the_mean_over_their_orders(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    scores = data.draw(st.lists(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0]), min_size=size, max_size=size))
    hits = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    orders = list(itertools.permutations(range(size)))
    means = [
        reference.average_precision([scores[i] for i in order], [hits[i] for i in order], sum(hits))
        for order in orders
    ]
    for kind in (np.float32, np.float64):  # one class, one video each: GAP is the class's average precision
        found = measured(np.array(scores, dtype=kind)[:, None], np.array(hits)[:, None]).compute()
        assert found["gap"] == pytest.approx(sum(means) / len(means), abs=1e-12)
        assert found["map"] == pytest.approx(found["gap"], abs=1e-12)


@pytest.mark.parametrize("rounded", [False, True])  # rounding makes equal scores
def test_neither_order_nor_batches_nor_merging_change_the_result(rounded: bool) -> None:
    predictions, labels = random_case(0)
    predictions = np.round(predictions, 1) if rounded else predictions
    top_k = 37  # which of two equal scores enters the top k is not defined, so let all enter
    whole = measured(predictions, labels, top_k).compute()
    close(measured(predictions, labels, top_k, tuple(range(1, 23))).compute(), whole)
    order = np.random.default_rng(1).permutation(23)
    shuffled = measured(predictions[order], labels[order], top_k).compute()
    if not rounded:
        close(shuffled, whole)
    assert (shuffled["gap"], shuffled["map"]) == pytest.approx((whole["gap"], whole["map"]), abs=1e-12)
    first, second = measured(predictions[:9], labels[:9], top_k), measured(predictions[9:], labels[9:], top_k)
    before = second.compute()
    first.merge(second)
    close(first.compute(), whole)
    close(second.compute(), before)


def test_update_after_compute_counts() -> None:
    predictions, labels = random_case(2)
    metrics = measured(predictions[:10], labels[:10])
    metrics.compute()
    metrics.per_class().positives[:] = 0  # a copy: it does not reach into the metrics
    metrics.update(predictions[10:], labels[10:])
    close(metrics.compute(), measured(predictions, labels).compute())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_every_floating_type_is_ranked_as_its_own_values(kind: torch.dtype) -> None:
    predictions, labels = random_case(3)
    rounded = torch.from_numpy(predictions).to(kind)
    close(
        measured(rounded, labels, 37).compute(),
        measured(rounded.double().numpy(), labels, 37).compute(),
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8])
def test_numeric_labels_are_as_good_as_bool(kind: type) -> None:
    predictions, labels = random_case(4)
    close(measured(predictions, labels.astype(kind)).compute(), measured(predictions, labels).compute())


def test_bfloat16_labels_on_strided_tensors() -> None:
    predictions, labels = random_case(4)
    strided = torch.from_numpy(labels.T.copy()).to(torch.bfloat16).T
    close(measured(predictions, strided).compute(), measured(predictions, labels).compute())


def test_float64_scores_that_float32_cannot_tell_apart_stay_apart() -> None:
    predictions = np.array([[0.5, 0.1], [0.5 + 1e-12, 0.1]])
    labels = np.array([[False, False], [True, False]])
    assert measured(predictions, labels, top_k=1).compute()["gap"] == 1.0


def test_perfect_and_useless_rankings() -> None:
    labels = np.eye(4, dtype=bool)
    best = measured(labels * 0.5 + 0.25, labels).compute()
    assert (best["hit_at_1"], best["perr"], best["map"], best["gap"]) == (1.0, 1.0, 1.0, 1.0)
    worst = measured(1.0 - labels * 0.5, labels, top_k=3).compute()
    assert (worst["hit_at_1"], worst["perr"], worst["map"], worst["gap"]) == (0.0, 0.0, 0.0, 0.0)


def test_videos_without_labels_count_as_misses() -> None:
    predictions, labels = random_case(5)
    with_empty = measured(
        np.vstack([predictions, predictions]), np.vstack([labels, labels & False])
    ).compute()
    alone = measured(predictions, labels).compute()
    assert with_empty["hit_at_1"] == pytest.approx(alone["hit_at_1"] / 2)
    assert with_empty["perr"] == pytest.approx(alone["perr"] / 2)
    assert with_empty["num_classes_in_map"] == alone["num_classes_in_map"]


def test_labels_outside_the_top_entries_are_positives_all_the_same() -> None:
    metrics = measured(np.array([[0.9, 0.8, 0.1]]), np.array([[True, False, True]]), top_k=2)
    assert metrics.compute()["gap"] == 0.5
    assert metrics.compute()["map"] == 0.5
    np.testing.assert_array_equal(metrics.per_class().average_precision, [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(metrics.per_class().positives, [1, 0, 1])


def test_perr_looks_below_the_top_entries_for_videos_of_many_labels() -> None:
    predictions, labels = random_case(6, share=0.7)
    assert labels.sum(axis=1).max() > 20
    expected = pytest.approx(reference.perr(predictions, labels), abs=1e-12)
    assert measured(predictions, labels, top_k=3).compute()["perr"] == expected
    assert measured(torch.from_numpy(predictions), labels, top_k=20).compute()["perr"] == expected


def test_memory_grows_by_the_top_entries_only() -> None:
    metrics = measured(*random_case(7, B=100, C=300), top_k=5, cuts=(50,))
    held = sum(array.nbytes for pool in metrics._pools for array in pool)
    assert held == 100 * 5 * (8 + 1 + 2)  # float64 score, hit, class as uint16
    for pool in metrics._pools:  # a view would keep a whole batch alive
        assert all(array.base is None or array.base.nbytes <= array.nbytes * 8 for array in pool)


def test_an_empty_batch_changes_nothing() -> None:
    metrics = measured(*random_case(8))
    before = metrics.compute()
    metrics.update(np.zeros((0, 37)), np.zeros((0, 37), dtype=bool))
    assert metrics.compute() == before


GOOD = np.full((2, 3), 0.5)
TRUE = np.ones((2, 3), dtype=bool)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (GOOD[0], TRUE, r"predictions must have the shape \(videos, 3\).* got \(3,\)"),
        (np.full((2, 4), 0.5), TRUE, r"predictions must have the shape \(videos, 3\).* got \(2, 4\)"),
        (GOOD, np.ones((2, 4), dtype=bool), r"labels must have the shape \(videos, 3\).* got \(2, 4\)"),
        (GOOD, TRUE[:1], "got 2 rows of predictions and 1 of labels"),
        (np.ones((2, 3), dtype=np.int64), TRUE, "predictions must be floating-point scores, got torch.int64"),
        (np.array([[0.1, 0.2, 0.3], [0.1, np.nan, 1]]), TRUE, "NaN in row 1; has the training diverged"),
        (GOOD, np.array([[0, 1, 0], [0, 0, 7]]), "labels must be bool, .* got 7"),
        (GOOD, np.array([[0, 1, 0], [0, 0, 0.25]]), "labels must be bool, .* got 0.25"),
        (GOOD, np.array([[0, 1, 0], [0, 0, -1]]), "labels must be bool, .* got -1"),
        (GOOD, np.array([[0, 1, 0], [0, 0, np.nan]]), "labels must be bool, .* got nan"),
    ],
)
def test_bad_batches_are_refused_and_leave_the_metrics_as_they_were(
    predictions: Any, labels: Any, message: str
) -> None:
    metrics = measured(GOOD, TRUE)
    before = metrics.compute()
    with pytest.raises(ValueError, match=message):
        metrics.update(predictions, labels)
    assert metrics.compute() == before


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(ValueError, match=r"call update\(predictions, labels\) before compute\(\)"):
        VideoMetrics(3).compute()
    with pytest.raises(ValueError, match="none of the 2 videos has a label"):
        measured(GOOD, ~TRUE).compute()
    with pytest.raises(ValueError, match="none of the 2 videos has a label"):
        measured(GOOD, ~TRUE).per_class()


@pytest.mark.parametrize("value", [0, -1, 2.0, "20", True, None])
def test_bad_settings_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1, got"):
        VideoMetrics(value)
    with pytest.raises(ValueError, match="top_k must be a whole number of at least 1, got"):
        VideoMetrics(3, top_k=value)


def test_only_like_metrics_merge() -> None:
    with pytest.raises(ValueError, match="num_classes must be the same in merged metrics, got 3 and 4"):
        VideoMetrics(3).merge(VideoMetrics(4))
    with pytest.raises(ValueError, match="top_k must be the same in merged metrics, got 20 and 5"):
        VideoMetrics(3).merge(VideoMetrics(3, top_k=5))
