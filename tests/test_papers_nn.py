"""The runs of expertise.nn against the papers: relations between the printed numbers, losses too."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from papers import load, said, table  # noqa: E402

NOWHERE = "/there is no such folder"

# -- Jacobs et al. 1991


@pytest.mark.parametrize("name", ["jacobs_vowels", "meta_pi"])
@pytest.mark.slow
def test_missing_vowels_are_said(name: str) -> None:
    file = f"{NOWHERE}/vowels/peterson_barney_1952.csv"
    assert said(name) == f"vowels: SKIPPED, no {file}; set EXPERTISE_DATA to the folder of the data\n"


@pytest.mark.slow
def test_experts_learn_the_vowels_in_fewer_epochs_and_two_or_three_survive(data_dir: Path) -> None:
    text = said("jacobs_vowels", str(data_dir))
    rows = table(text)
    parameters, epochs, _, _, new, missed, _, survive, fewest, most = range(10)
    sizes = {"4 experts": 24, "net, 6 hidden": 25, "8 experts": 48, "net, 12 hidden": 49}
    for name, size in sizes.items():
        assert rows[name][parameters] == size
        assert rows[name][missed] == 0
        assert rows[name][new] > 85
    assert rows["net, 6 hidden"][epochs] >= 1.3 * rows["4 experts"][epochs]
    assert rows["net, 12 hidden"][epochs] > 1.1 * rows["8 experts"][epochs]
    for name in ("4 experts", "8 experts"):
        assert 2 <= rows[name][fewest] <= rows[name][survive] <= rows[name][most] <= 3
    assert rows["one logistic unit"][-2] < 60, "one line does not divide these targets"
    assert rows["logistic, 4 vowels"][-2:] == [92.5, 91.5], "four classes do without experts"


@pytest.mark.slow
def test_cooperating_experts_are_worse_alone(data_dir: Path) -> None:
    rows = table(said("jacobs_vowels", str(data_dir)))
    drawn, blend, entropy = range(3)
    for name in ("expected", "likelihood"):
        assert rows["cooperative"][drawn] > 1.3 * rows[name][drawn]
        assert rows["cooperative"][entropy] > 2 * rows[name][entropy]
    assert rows["cooperative"][blend] < rows["likelihood"][blend], "the blend is what it was trained for"


def test_the_vowels_are_of_75_speakers(data_dir: Path) -> None:
    script = load("jacobs_vowels")
    (X, y), (new_X, new_y), vowels = script.read(data_dir / "vowels" / "peterson_barney_1952.csv")
    assert X.shape == (50 * 4 * 2, 3)
    assert new_X.shape == (25 * 4 * 2, 3)
    assert float(y.mean()) == float(new_y.mean()) == 0.5
    assert list(vowels[:8]) == ["i", "i", "I", "I", "V", "V", "A", "A"]
    assert X[0].tolist() == pytest.approx([0.24, 2.28, 1.0])


def test_the_runs_of_one_tensor_are_those_of_each_alone() -> None:
    script = load("jacobs_vowels")
    X = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    data, steps = (X, (X[:, 0] > 0.5).float()), torch.tensor([1.0, 4.0, 8.0])
    for kind in ("likelihood", "net"):
        together = script.start(3, kind, 3, 0)
        alone = [part[:, 1:2].detach().clone().requires_grad_() for part in together]
        epochs = script.descend(kind, together, data, steps, 40, goal=0.2)
        assert epochs[1] == script.descend(kind, alone, data, steps[1:2], 40, goal=0.2)
        for part, own in zip(together, alone, strict=True):
            torch.testing.assert_close(part[:, 1:2], own)


# -- Meta-Pi


@pytest.mark.slow
def test_meta_pi_finds_the_source_that_it_never_saw(data_dir: Path) -> None:
    rows = table(said("meta_pi", str(data_dir)))
    mean = {name: numbers[0] for name, numbers in rows.items()}
    assert mean["Meta-Pi"] > mean["pooled"] + 5
    assert mean["Meta-Pi"] > mean["uniform average"] + 10
    assert mean["uniform average"] > mean["experts of the wrong sources"] + 10
    assert abs(mean["Meta-Pi"] - mean["expert of the right source"]) < 3
    assert mean["gate picks the source"] > 70
    assert mean["pooled, with f0 to F3"] > mean["Meta-Pi"], "one model with all columns wins"


@pytest.mark.slow
def test_five_examples_of_each_vowel_adapt_meta_pi(data_dir: Path) -> None:
    rows = table(said("meta_pi", str(data_dir)))
    others, added, _, pooled, _, before, after = range(7)
    for source in ("men", "women", "children"):
        row = rows[f"new: {source}"]
        assert row[added] > row[others] + 3
        assert abs(row[after] - row[before]) < 1.5, "the other sources are not forgotten"
    assert rows["new: men"][added] > rows["new: men"][pooled] + 10


@pytest.mark.slow
def test_meta_pi_has_the_numbers_of_an_earlier_measurement(data_dir: Path) -> None:
    script = load("meta_pi")
    X, y, source, speaker = script.read(data_dir / "vowels" / "peterson_barney_1952.csv")
    folds = script.StratifiedGroupKFold(6, shuffle=True, random_state=0).split(X, source, speaker)
    parts = [[(X[rows], y[rows], source[rows]) for rows in fold] for fold in folds]
    found = [script.one_fold(*part, 60) for part in parts]
    expected = {
        "pooled": 76.1,
        "experts of the wrong sources": 51.6,
        "uniform average": 69.2,
        "expert of the right source": 84.3,
        "Meta-Pi": 85.2,
        "Meta-Pi, argmax": 84.5,
        "gate picks the source": 86.4,
        "pooled, with f0 to F3": 88.1,
    }
    for name, value in expected.items():
        assert sum(fold[name] for fold in found) / 6 == pytest.approx(value, abs=2), name


# -- REINFORCE


@pytest.mark.slow
def test_drawn_gradients_have_the_exact_mean_and_baselines_their_order() -> None:
    rows = table(said("reinforce"))
    for name in ("none", "batch", "gate"):
        typical, largest = rows[f"draws, {name}"][:2]
        assert typical < 2
        assert largest < 4
        assert rows[name] == pytest.approx(rows["exact"], abs=0.03)
    none, batch, gate = (rows[f"draws, {name}"][2] for name in ("none", "batch", "gate"))
    assert none > 1.1 * batch > 1.2 * gate
    by = {name: rows[f"by {name}"][0] for name in ("E2 itself", "none", "batch", "gate")}
    assert min(by.values()) == by["E2 itself"], "draws cost"
    assert max(by.values()) < 0.5 * rows["by E2 itself"][-1], "and they do learn"


# -- balance


@pytest.mark.slow
def test_balance_is_reached_and_paid_for() -> None:
    rows = table(said("balance_losses"))
    busy, training, error, dropped, limited, nobody = range(6)
    for name in ("top_k, loss-free bias", "noisy_top_k, imp. + load"):
        assert rows[name][busy] < 0.85 * rows["top_k"][busy]
        assert rows[name][dropped] < 0.5 * rows["top_k"][dropped]
        assert rows[name][error] > rows["top_k"][error], "balance costs where regimes are of unlike sizes"
        assert rows[name][limited] < rows["top_k"][limited], "and pays when experts are full"
    assert rows["top_k, k=1, balance .1"][busy] < rows["top_k, k=1"][busy]
    assert rows["expert_choice"][busy] == rows["expert_choice"][training] == 1
    assert rows["expert_choice"][dropped] == 0
    assert rows["base, k=1"][training] == 1
    assert rows["base, k=1"][busy] > 2, "balanced in training only"
    assert rows["sinkhorn"][training] < rows["sinkhorn"][busy]
    assert all(row[nobody] == 0 for name, row in rows.items() if name not in ("expert_choice",))


# -- constant work


@pytest.mark.slow
def test_work_follows_k_and_the_error_falls_with_the_number_of_experts() -> None:
    rows = table(said("constant_flops"))
    parameters, flops, router, ran, _, error = range(6)
    dense = rows["dense"]
    for k in (1, 2):
        for num_experts in (4, 16, 64):
            row = rows[f"E={num_experts}, k={k}"]
            assert row[flops] == k * dense[flops]
            assert row[ran] == k
            assert row[router] == num_experts * dense[router], "the router's work does grow"
            assert row[parameters] == num_experts * dense[parameters]
        errors = [rows[f"E={num_experts}, k={k}"][error] for num_experts in (4, 16, 64)]
        equal = rows["dense" if k == 1 else "dense, 2 times as wide"]
        assert equal[flops] == k * dense[flops]
        assert equal[error] > errors[0] > errors[1] > errors[2]
    wide = rows["dense, 16 times as wide"]
    assert wide[parameters] == rows["E=16, k=1"][parameters]
    assert wide[error] < rows["E=4, k=1"][error], "more work for all tokens helps too"


# -- causality


@pytest.mark.slow
def test_which_layers_see_later_tokens() -> None:
    rows = table(said("soft_causality"))
    changed, largest, batch, permuted = range(4)
    for name in ("top_k", "sinkhorn", "base", "top_k, k=1, the same"):
        assert rows[name][changed] == 0
        assert rows[name][largest] < 1e-5
    for name in ("top_k, capacity 1", "top_k, capacity 1, priority", "expert_choice", "soft"):
        assert rows[name][changed] > 1
        assert rows[name][largest] > 0.1
    assert rows["soft"][changed] == 100
    assert rows["soft"][batch] == rows["top_k"][batch] == rows["top_k, capacity 1, sequence"][batch] == 0
    assert rows["expert_choice"][batch] > 1
    for name in ("top_k", "expert_choice", "soft", "top_k, capacity 1, priority"):
        assert rows[name][permuted] < 1e-4
    assert rows["top_k, capacity 1"][permuted] > 0.1, "who comes first is served"
