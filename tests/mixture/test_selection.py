"""How many experts: the criteria by hand, one expert among the candidates, growing trees."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from expertise import MixtureOfExpertsRegressor
from expertise.mixture import TreeGate
from mixture.datasets import regimes


@pytest.mark.filterwarnings("ignore:few cases")
@pytest.mark.parametrize("criterion", ["bic", "aic", "icl", "cv"])
def test_the_number_of_regimes_is_found(criterion: str) -> None:
    data = regimes(600, 2)
    model = MixtureOfExpertsRegressor(
        "auto", criterion=criterion, max_experts=4, starts=["random", "residual"], n_init=4, random_state=0
    ).fit(data.X, data.y)
    assert model.selection_ is not None
    assert [line["n_experts"] for line in model.selection_] == [1, 2, 3, 4]
    chosen = [line for line in model.selection_ if line["chosen"]]
    assert len(chosen) == 1
    assert chosen[0][criterion] == min(line[criterion] for line in model.selection_)
    assert model.n_experts_ == chosen[0]["n_experts"] >= 2
    if criterion == "bic":
        assert model.n_experts_ == 2


def test_one_expert_is_chosen_where_there_are_no_regimes() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X @ [1.0, 2.0, 3.0] + rng.normal(size=300)
    model = MixtureOfExpertsRegressor("auto", max_experts=3, n_init=3, random_state=0).fit(X, y)
    assert model.n_experts_ == 1


def test_criteria_by_hand() -> None:
    data = regimes(300, 2)
    model = MixtureOfExpertsRegressor(2, n_init=3, random_state=0).fit(data.X, data.y)
    loglik, df = model.score_samples(data.X, data.y).sum(), 4 + 2 * 5
    assert model.n_parameters_ == df
    h = model.responsibilities(data.X, data.y)
    entropy = -(h * np.log(np.where(h > 0, h, 1))).sum()
    assert model.aic(data.X, data.y) == pytest.approx(-2 * loglik + 2 * df)
    assert model.bic(data.X, data.y) == pytest.approx(-2 * loglik + df * np.log(300))
    assert model.icl(data.X, data.y) == pytest.approx(model.bic(data.X, data.y) + 2 * entropy)
    table = MixtureOfExpertsRegressor("auto", max_experts=2, n_init=3, random_state=0).fit(data.X, data.y)
    assert table.selection_ is not None
    assert table.selection_[1]["bic"] == pytest.approx(model.bic(data.X, data.y), abs=0.5)


@pytest.mark.parametrize(
    ("gate", "expert", "df"),
    [
        ("softmax", "gaussian", 3 + 2 * 4),
        ("constant", "gaussian", 1 + 2 * 4),
        ("softmax", "student_t", 3 + 2 * 5),
        ("softmax", "poisson", 3 + 2 * 3),
        ("gaussian", "gaussian", 1 + 2 * 2 + 2 * 3 + 2 * 4),
        ("softmax", "constant", 3 + 2 * 2),
    ],
)
def test_parameters_are_counted(gate: str, expert: str, df: int) -> None:
    data = regimes(300, 2, 2)
    y = np.round(np.abs(data.y)) if expert == "poisson" else data.y
    model = MixtureOfExpertsRegressor(2, gate=gate, expert=expert, n_init=2, random_state=0).fit(data.X, y)
    assert model.n_parameters_ == df


def test_a_gaussian_gate_counts_the_joint_likelihood() -> None:
    data = regimes(300, 2, 2)
    model = MixtureOfExpertsRegressor(2, gate="gaussian", n_init=2, random_state=0).fit(data.X, data.y)
    assert model.loglik_ == pytest.approx(model.score_samples(data.X, data.y).sum(), abs=1e-6)
    density = model.score_samples(data.X).sum()  # log p(x)
    assert model.joint_loglik_ == pytest.approx(model.loglik_ + density, abs=1e-6)
    assert model.bic(data.X, data.y) == pytest.approx(
        -2 * model.joint_loglik_ + model.n_parameters_ * np.log(300)
    )


def test_a_tree_grows_where_it_helps_and_is_pruned_back() -> None:
    data = regimes(1200, 4, 4)
    model = MixtureOfExpertsRegressor(gate=TreeGate(grow=True, max_leaves=6), n_init=3, random_state=0)
    model.fit(data.X, data.y)
    assert model.selection_ is not None
    assert model.selection_[0]["step"] == "one expert"
    values = [line["bic"] for line in model.selection_]
    assert values == sorted(values, reverse=True)
    assert 3 <= model.n_experts_ <= 6
    # borders that meet in a star are no tree: four leaves do not reach a flat gate, but the fixed tree
    fixed = MixtureOfExpertsRegressor(gate=TreeGate(branching=(2, 2)), n_init=6, random_state=0)
    assert model.loglik_ > fixed.fit(data.X, data.y).loglik_ - 1
    text = model.gate_.to_text()  # type: ignore[attr-defined]
    assert text.count("expert") >= model.n_experts_
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    flat = MixtureOfExpertsRegressor(gate=TreeGate(grow=True), random_state=0)
    assert flat.fit(X, X[:, 0] + rng.normal(size=200)).n_experts_ == 1


def test_experts_without_a_count_are_chosen_by_cross_validation() -> None:
    data = regimes(300, 2)
    model = MixtureOfExpertsRegressor(
        "auto", expert=Ridge(), criterion="cv", max_experts=2, n_init=2, max_iter=20, random_state=0
    )
    with pytest.warns(UserWarning, match=r"objective fell|did not converge|few cases"):
        model.fit(data.X, data.y)
    assert model.n_experts_ == 2
    with pytest.raises(ValueError, match="criterion="):
        MixtureOfExpertsRegressor(gate=TreeGate(grow=True), criterion="cv").fit(data.X, data.y)
