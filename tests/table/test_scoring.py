"""Scores against scikit-learn and by hand; what is said of them; the models that a mixture must beat."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from expertise.table import baselines
from expertise.table.scoring import MIXTURE, ONE, Held, difference, losses, scores, verdict

RNG = np.random.default_rng(0)
N = 60
Y = RNG.normal(size=N)
WEIGHT = RNG.integers(0, 4, N).astype(float)
GUESS = Y + 0.5 * RNG.normal(size=N)
PROBA = RNG.dirichlet(np.ones(3), N)
CODES = RNG.integers(0, 3, N)


@pytest.fixture(autouse=True, scope="module")
def _thin() -> None:
    """Take the models as they are: unlike elsewhere, boosting is boosting here."""


def test_scores_of_numbers_are_those_of_scikit_learn() -> None:
    interval = np.stack([GUESS - 0.6, GUESS + 0.6], axis=1)
    found = scores(Held("m", GUESS, stats.norm.logpdf(Y, GUESS, 0.5), interval), Y, WEIGHT)
    assert list(found) == ["RMSE", "R2", "log-likelihood", "90 % covered"]
    assert found["RMSE"] == pytest.approx(
        metrics.root_mean_squared_error(Y, GUESS, sample_weight=WEIGHT), rel=1e-12
    )
    assert found["R2"] == pytest.approx(metrics.r2_score(Y, GUESS, sample_weight=WEIGHT), rel=1e-12)
    mean = np.average(stats.norm.logpdf(Y, GUESS, 0.5), weights=WEIGHT)
    assert found["log-likelihood"] == pytest.approx(mean)
    assert found["90 % covered"] == pytest.approx(WEIGHT[np.abs(Y - GUESS) <= 0.6].sum() / WEIGHT.sum())


def test_scores_by_hand() -> None:
    found = scores(Held("m", np.array([1.0, 2.0, 5.0])), np.array([1.0, 2.0, 2.0]), np.ones(3))
    assert found["RMSE"] == pytest.approx(np.sqrt(3))
    assert found["log-likelihood"] is None
    assert found["90 % covered"] is None
    assert scores(Held("m", np.ones(1)), np.ones(1), np.ones(1))["R2"] is None  # one row has no variance


def test_a_row_of_weight_2_counts_twice() -> None:
    weight = np.array([2.0, 1, 0, 1])
    again = np.array([0, 0, 1, 3])
    for held, y in ((Held("m", GUESS[:4]), Y[:4]), (Held("m", PROBA[:4]), np.array([0, 1, 2, 2]))):
        once = scores(held, y, weight)
        twice = scores(Held("m", held.prediction[again]), y[again], np.ones(4))
        assert once == pytest.approx(twice)


def test_scores_of_classes_are_those_of_scikit_learn() -> None:
    found = scores(Held("m", PROBA), CODES, WEIGHT)
    assert list(found) == ["accuracy", "log loss"]
    assert found["accuracy"] == metrics.accuracy_score(CODES, PROBA.argmax(axis=1), sample_weight=WEIGHT)
    assert found["log loss"] == pytest.approx(
        metrics.log_loss(CODES, PROBA, sample_weight=WEIGHT, labels=[0, 1, 2])
    )


def test_two_classes_have_an_area_under_the_curve() -> None:
    proba, codes = PROBA[:, :2] / PROBA[:, :2].sum(axis=1, keepdims=True), CODES % 2
    found = scores(Held("m", proba), codes, WEIGHT)
    assert found["AUC"] == pytest.approx(metrics.roc_auc_score(codes, proba[:, 1], sample_weight=WEIGHT))
    assert scores(Held("m", proba), np.zeros(N, int), WEIGHT)["AUC"] is None  # only one class was held out


def test_a_probability_of_zero_costs_much_and_not_everything() -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = losses(Held("m", sure), np.array([0, 1]))
    assert found[0] == pytest.approx(0)
    assert found[1] == pytest.approx(-np.log(1e-15))
    assert np.isfinite(scores(Held("m", sure), np.array([0, 1]), np.ones(2))["log loss"])


def test_losses_are_what_is_scored() -> None:
    share = WEIGHT / WEIGHT.sum()
    squared = losses(Held("m", GUESS), Y)
    assert scores(Held("m", GUESS), Y, WEIGHT)["RMSE"] == pytest.approx(np.sqrt(share @ squared))
    logs = losses(Held("m", PROBA), CODES)
    assert scores(Held("m", PROBA), CODES, WEIGHT)["log loss"] == pytest.approx(share @ logs)


def test_the_difference_of_two_models_and_its_interval() -> None:
    a, b = RNG.normal(size=400) + 0.3, RNG.normal(size=400)
    mean, low, high = difference(a, b, np.ones(400))
    error = (a - b).std() / np.sqrt(400)
    assert mean == pytest.approx((a - b).mean())
    half = stats.t.ppf(0.975, 399) * error * np.sqrt(400 / 399)
    assert (low, high) == pytest.approx((mean - half, mean + half))


def test_the_interval_covers_no_difference_as_often_as_it_says() -> None:
    for n in (3, 50):
        apart = np.random.default_rng(1).normal(size=(2000, n))
        found = (difference(one, 0 * one, np.ones(n)) for one in apart)
        inside = [low <= 0 <= high for _, low, high in found]
        assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_rows_without_weight_are_no_evidence() -> None:
    a, weight = np.array([1.0, 2.0, 4.0, 9.0]), np.array([1.0, 1, 1, 0])
    assert difference(a, np.zeros(4), weight) == pytest.approx(difference(a[:3], np.zeros(3), np.ones(3)))
    assert difference(a, np.zeros(4), np.array([0.0, 0, 1, 0])) == (4, -np.inf, np.inf)


# -- the verdict


def held(**errors: float) -> list[Held]:
    """Models of these RMSE, whose answers are off by a little more or less from row to row."""
    names = {"mixture": MIXTURE, "one": ONE, "ridge": "ridge regression", "boosting": "gradient boosting"}
    found = []
    for name, error in errors.items():
        noise = np.random.default_rng(len(found)).uniform(0.8, 1.2, N) * np.resize([1, -1], N)
        found.append(Held(names[name], Y + error * noise / np.sqrt((noise**2).mean())))
    return found


@pytest.mark.parametrize(
    ("models", "start", "helps"),
    [
        (
            held(mixture=0.1, one=1, ridge=1, boosting=0.5),
            "The mixture helps: RMSE 0.1 on 60 held-out rows, against 0.5 of gradient boosting, and ",
            True,
        ),
        (
            held(mixture=0.5, one=1, ridge=1, boosting=0.1),
            "The mixture helps over one expert, but is not the best here: RMSE 0.5 on 60 held-out rows, "
            "against 0.1 of gradient boosting. Use gradient boosting where only the error counts.",
            True,
        ),
        (
            held(mixture=1, one=0.5, ridge=1, boosting=1),
            "The mixture does not help: RMSE 1 on 60 held-out rows, against 0.5 of one expert. Use one "
            "expert.",
            False,
        ),
        (
            held(mixture=0.5, one=1, ridge=1, boosting=0.5),
            "The mixture helps over one expert (RMSE 1): RMSE 0.5 on 60 held-out rows, against ",
            True,
        ),
        (
            held(mixture=1, one=1, ridge=1, boosting=1),
            "The mixture does not help, as far as 60 held-out rows can tell: RMSE 1 on 60 held-out rows",
            False,
        ),
        (
            held(mixture=0.5, one=0.5, ridge=1, boosting=0.1),
            "The mixture does not help: RMSE 0.5 on 60 held-out rows, against 0.1 of gradient boosting. "
            "Use gradient boosting.",
            False,
        ),
    ],
)
def test_what_is_said_of_the_mixture(models: list[Held], start: str, helps: bool) -> None:
    found = verdict(models, Y, np.ones(N), n_experts=2)
    assert found.text.startswith(start)
    assert found.helps is helps


def test_what_cannot_be_told_is_said() -> None:
    near = held(mixture=0.5, one=1, ridge=1, boosting=0.5)
    assert verdict(near, Y, np.ones(N), 2).text.endswith("between these two, the rows cannot tell.")
    same = held(mixture=1, one=1, ridge=1, boosting=1)
    text = verdict(same, Y, np.ones(N), 2).text
    assert "that is within chance. One expert (RMSE 1) is simpler." in text


def test_one_expert_is_no_mixture() -> None:
    models = held(mixture=0.5, one=0.5, ridge=0.4, boosting=1)
    found = verdict(models, Y, np.ones(N), n_experts=1)
    assert found.helps is False
    assert found.text == (
        "One expert is enough: more would not pay for their parameters, so this is one model and no mixture "
        "(RMSE 0.5 on 60 held-out rows, against 0.4 of ridge regression)."
    )
    asked = verdict(models, Y, np.ones(N), n_experts=1, chosen=False)
    assert asked.text.startswith("This is one model and no mixture (RMSE")


def test_the_verdict_on_classes_is_by_log_loss() -> None:
    sure, unsure = np.full((N, 2), 0.1), np.full((N, 2), 0.5)
    sure[np.arange(N), CODES % 2] = 0.9
    weight = np.ones(N)
    found = verdict([Held(MIXTURE, sure), Held(ONE, unsure)], CODES % 2, weight, 2)
    assert found.text.startswith("The mixture helps: log loss 0.1054 on 60 held-out rows, against 0.6931 of")


# -- the models that it must beat


def test_ridge_is_that_of_scikit_learn() -> None:
    X, new = RNG.normal(size=(N, 3)), RNG.normal(size=(9, 3))
    name, model = baselines.linear("regression")
    weight = np.ones(N)
    found = baselines.fit_and_predict(name, model, X, Y, weight, new, 0)
    scaler = StandardScaler().fit(X)
    expected = RidgeCV(baselines.RIDGES).fit(scaler.transform(X), Y).predict(scaler.transform(new))
    assert found.name == "ridge regression"
    np.testing.assert_allclose(found.prediction, expected)


@pytest.mark.parametrize("which", [baselines.linear, lambda task: baselines.boosting(task, 0)])
def test_a_class_that_was_not_fitted_has_no_probability(which: object) -> None:
    X, y = RNG.normal(size=(N, 2)), np.where(CODES == 1, 0, CODES)  # no row of class 1
    name, model = which("classification")  # type: ignore[operator]
    if name == "gradient boosting":
        model.set_params(max_iter=3)
    found = baselines.fit_and_predict(name, model, X, y, np.ones(N), X, 3)
    assert found.prediction.shape == (N, 3)
    assert (found.prediction[:, 1] == 0).all()
    np.testing.assert_allclose(found.prediction.sum(axis=1), 1)


def test_baselines_see_the_weights() -> None:
    X = np.r_[np.zeros((20, 1)), np.ones((20, 1))]
    y = np.r_[np.zeros(20), np.ones(10), 3 * np.ones(10)]
    weight = np.r_[np.ones(30), np.zeros(10)]
    for name, model in (baselines.linear("regression"), baselines.boosting("regression", 0)):
        if name == "gradient boosting":
            model.set_params(max_iter=50)
        found = baselines.fit_and_predict(name, model, X, y, weight, np.ones((1, 1)), 0)
        assert found.prediction[0] < 1.05
