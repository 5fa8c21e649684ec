"""The worked example of handwritten digits: its data, its mixtures, and what its page claims."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from worked.running import ROOT, assert_page_shows, run_example, script_of

pytest.importorskip("torch")
PICTURE = ROOT / "docs" / "examples" / "vision-experts.png"


@pytest.fixture
def vision(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script_of("vision", monkeypatch)


def tables(part: str) -> dict[str, list[float]]:
    """Give the rows of the first table: accuracy, that of one expert, log-likelihood, parameters."""
    cells = (re.split(r"\s{2,}", line) for line in part.splitlines()[2:7])
    return {name: [float(one) for one in numbers] for name, *numbers in cells}


def shares(part: str, mixture: str, what: str) -> np.ndarray:
    """Give the matrix (experts, classes) of a mixture, in percent: "decides" or "alone is right"."""
    block = part.split(f"{mixture}, last set, percent of each class\n")[1]
    rows = re.findall(rf"^  expert \d {what}(.*)$", block, re.MULTILINE)[:3]
    return np.array([[float(one) for one in row.split()] for row in rows])


def test_pixels_are_averaged_two_by_two(vision: ModuleType) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    small = vision.small(images)
    assert small.shape == (3, 14, 14)
    for row, column in ((0, 0), (5, 13)):
        block = images[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert small[1, row, column] == pytest.approx(block.mean() / 255)


def test_each_class_is_in_one_group(vision: ModuleType) -> None:
    assert sorted(c for group in vision.GROUPS for c in group) == list(range(10))
    for c, k in enumerate(vision.GROUP_OF):
        assert c in vision.GROUPS[k]


def test_the_training_sets_of_mnist_share_no_image_with_each_other_or_with_the_test(
    vision: ModuleType, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPERTISE_DATA", str(data_dir))
    monkeypatch.setattr(vision, "small", lambda images: images)
    sets = list(vision.read("MNIST", quick=False))
    assert [len(learn) for learn, *_ in sets] == 5 * [4000]
    assert all(len(test) == 3000 for _, _, test, _ in sets)
    with np.load(data_dir / "vision" / "mnist_20k_train_3k_test.npz") as data:
        np.testing.assert_array_equal(np.concatenate([learn for learn, *_ in sets]), data["x_train"])
        np.testing.assert_array_equal(sets[-1][2], data["x_test"])
        np.testing.assert_array_equal(np.concatenate([y for _, y, _, _ in sets]), data["y_train"])


def test_specialists_know_their_group_alone_and_the_sizes_are_counted(vision: ModuleType) -> None:
    images, y, test_images, test_y = next(vision.read("digits", quick=True))
    X, test_X = images.reshape(len(images), -1)[:600], test_images.reshape(len(test_images), -1)
    found = vision.fit_all(X, y[:600], 3)
    given, size = found[vision.GIVEN]
    for k, group in enumerate(vision.GROUPS):
        others = np.delete(np.arange(10), group)
        assert (given.predict_experts(test_X)[:, k, others] == 0).all()
    counted = sum(one.numel() for one in given.parameters_of("gate"))
    counted += sum(one.numel() for k in given.experts_ for one in k.experts_[0].parameters())
    assert size == counted
    learned, size = found[vision.LEARNED]
    assert size == learned.n_parameters_
    assert found[vision.EQUAL][1] >= size > found[vision.ONE][1]
    for name in (vision.ONE, vision.EQUAL):
        model, size = found[name]
        assert size == sum(one.numel() for one in model.experts_[0].parameters())
    accuracy, alone, log_likelihood = vision.measure(given, test_X, test_y)
    assert accuracy == given.score(test_X, test_y)
    own = given.predict_experts(test_X)[np.arange(len(test_X)), given.apply(test_X)]
    assert alone == np.mean(own.argmax(axis=1) == test_y)
    assert log_likelihood < 0


def test_the_quick_run_prints_all_tables_and_draws(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "experts.png"
    parts = run_example("vision", data_dir, "--quick", f"--figure={picture}").strip().split("\n\n")
    assert [part.split(":")[0] for part in parts] == ["digits", "MNIST"]
    for part in parts:
        rows = tables(part)
        assert len(rows) == 5
        assert part.count(" minus ") == 5
        for mixture in ("groups given", "groups learned"):
            np.testing.assert_allclose(shares(part, mixture, "decides").sum(axis=0), 100, atol=1.5)
        best = max(rows, key=lambda name: rows[name][0])
        assert rows[re.findall(r": (.*) wins by accuracy$", part)[0]][0] == rows[best][0]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_the_page_is_small_and_has_words_for_who_cannot_see_it() -> None:
    assert PICTURE.stat().st_size < 60_000
    page = (ROOT / "docs" / "examples" / "vision.md").read_text(encoding="utf-8")
    [words] = re.findall(r"!\[([^\]]+)\]\(vision-experts\.png\)", page)
    assert len(words) > 60


def test_the_script_is_short() -> None:
    assert len((ROOT / "examples" / "worked" / "vision.py").read_text().splitlines()) < 150


@pytest.mark.slow
def test_the_claims_of_the_page(data_dir: Path) -> None:
    printed = run_example("vision", data_dir)
    matrices = [line for line in printed.splitlines() if line.startswith("  expert")]
    assert_page_shows("vision.md", "\n".join(matrices), 6.0)  # percent of 30 to 300 images
    rest = [line for line in printed.splitlines() if line not in matrices]
    assert_page_shows("vision.md", "\n".join(rest), 0.02)

    digits, mnist = printed.strip().split("\n\n")
    for part, found in ((digits, 0.96), (mnist, 0.91)):
        given, learned, one, equal, logistic = tables(part).values()
        assert min(given[0], learned[0]) > logistic[0] + 0.02
        assert equal[2] > max(given[2], learned[2], one[2]) + 0.01, (
            "the wide network has the best probabilities"
        )
        assert all(-0.001 <= mixture[0] - mixture[1] < 0.006 for mixture in (given, learned))
        assert float(re.findall(r"the gate finds the given group of (\S+)", part)[0]) > found
        diagonal = shares(part, "groups given", "decides")
        assert (diagonal.max(axis=0) > 80).all()
        assert [int(k) for k in diagonal.argmax(axis=0)] == [0, 1, 2, 2, 1, 2, 0, 1, 0, 0]
        learned_shares = shares(part, "groups learned", "decides")
        assert np.mean(learned_shares.max(axis=0) > 60) >= 0.7, "classes go to one expert, mostly"
    given, learned, one, equal, _ = tables(mnist).values()
    assert max(given[0], learned[0]) < equal[0] - 0.01, "the page says that one network wins"
    assert given[0] < one[0]
    assert one[3] < given[3] / 3
    assert shares(mnist, "groups given", "alone is right").max(axis=0).min() > 85
    assert "groups learned minus one expert: +" in digits
