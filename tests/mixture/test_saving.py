"""Models on disk: equal predictions, no code run, whole files or none."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture import StudentTExpert, TreeGate, from_json, load
from mixture.datasets import regimes

pytestmark = pytest.mark.filterwarnings("ignore")
BUILT_IN = [
    {},
    {"gate": "constant", "expert": "student_t"},
    {"gate": "gaussian", "expert": "constant"},
    {"gate": TreeGate(branching=(2, 2))},
    {"expert": ["gaussian", StudentTExpert(max_nu=50.0)], "gate_features": slice(0, 2)},
    {"expert_features": [0, 2], "starts": ["random"], "random_state": 3},
]


def same(one: Any, other: Any, X: Any, y: Any) -> None:
    np.testing.assert_allclose(other.predict(X), one.predict(X), atol=1e-12, rtol=1e-12)
    np.testing.assert_allclose(other.gate_proba(X), one.gate_proba(X), atol=1e-12)
    np.testing.assert_allclose(other.score_samples(X, y), one.score_samples(X, y), atol=1e-9)
    assert other.loglik_ == one.loglik_
    assert other.starts_ == one.starts_


@pytest.mark.parametrize("arguments", BUILT_IN)
def test_skops_and_json_give_equal_predictions(tmp_path: Path, arguments: dict[str, Any]) -> None:
    data = regimes(150, 2)
    model = MixtureOfExpertsRegressor(**{"n_init": 2, "random_state": 0, **arguments}).fit(data.X, data.y)
    model.save(tmp_path / "model.skops")
    same(model, load(tmp_path / "model.skops"), data.X, data.y)
    text = model.to_json()
    json.loads(text)
    again = from_json(text)
    same(model, again, data.X, data.y)
    assert again.summary() == model.summary()
    (tmp_path / "model.json").write_text(text)
    same(model, load(tmp_path / "model.json"), data.X, data.y)
    again.refit(data.X, data.y)  # a loaded model goes on learning


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [3, 7]])
def test_classifiers_keep_their_labels(tmp_path: Path, labels: list[Any]) -> None:
    data = regimes(150, 2)
    y = np.array(labels)[(data.y > 0).astype(int)]
    model = MixtureOfExpertsClassifier(2, alpha=0.1, n_init=2, random_state=0).fit(data.X, y)
    model.save(tmp_path / "model.skops")
    for again in (load(tmp_path / "model.skops"), from_json(model.to_json())):
        assert again.classes_.dtype == model.classes_.dtype
        assert (again.predict(data.X) == model.predict(data.X)).all()


def test_column_names_are_kept() -> None:
    pandas = pytest.importorskip("pandas")
    data = regimes(150, 2)
    frame = pandas.DataFrame(data.X, columns=["a", "b", "c"])
    model = MixtureOfExpertsRegressor(2, gate_features=["a"], n_init=2, random_state=0).fit(frame, data.y)
    again = from_json(model.to_json())
    assert list(again.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame.rename(columns={"a": "z"}))


def test_estimators_go_to_skops_and_not_to_json(tmp_path: Path) -> None:
    data = regimes(150, 2)
    model = MixtureOfExpertsRegressor(2, expert=Ridge(), gate=LogisticRegression(), n_init=1, max_iter=10)
    model.set_params(random_state=0).fit(data.X, data.y)
    with pytest.raises(ValueError, match=r"has no JSON; use save, which writes a skops file"):
        model.to_json()
    model.save(tmp_path / "model.skops")
    same(model, load(tmp_path / "model.skops"), data.X, data.y)


class Stranger(Ridge):  # type: ignore[misc]
    """An estimator that skops does not know."""


def test_unknown_types_are_refused_unless_trusted(tmp_path: Path) -> None:
    data = regimes(100, 2)
    model = MixtureOfExpertsRegressor(2, expert=Stranger(), n_init=1, max_iter=5, random_state=0)
    model.fit(data.X, data.y).save(tmp_path / "model.skops")
    name = f"{Stranger.__module__}.Stranger"
    with pytest.raises(ValueError, match=rf"not known to be safe: {name}"):
        load(tmp_path / "model.skops")
    try:
        trusted = load(tmp_path / "model.skops", trusted=[name])
    except (ImportError, ModuleNotFoundError):
        return  # test modules are not importable by name in every runner
    np.testing.assert_allclose(trusted.predict(data.X), model.predict(data.X))


def test_reading_runs_no_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    (tmp_path / "model.skops").write_bytes(pickle.dumps(Evil()))
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        load(tmp_path / "model.skops")
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        from_json("[]")
    with pytest.raises(ValueError, match="version 99, known are up to 1"):
        from_json('{"format": "expertise.mixture", "version": 99, "estimator": "MixtureOfExpertsRegressor"}')
    assert not ran.exists()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import skops.io

    data = regimes(100, 2)
    model = MixtureOfExpertsRegressor(2, n_init=1, random_state=0).fit(data.X, data.y)
    file = tmp_path / "model.skops"
    model.save(file)
    before = file.read_bytes()

    def fails(_: Any) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr(skops.io, "dumps", fails)
    with pytest.raises(OSError, match="disk full"):
        model.save(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.skops"]
