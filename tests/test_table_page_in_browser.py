"""From a table to the page in a real browser: what its panel says is what `predict` says in Python."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from report.browser import Browser, chromium
from report.test_mixture_in_browser import VALUES

pytestmark = pytest.mark.slow
HEADER = "load,site,oiled,checked,wear"
SITES = ("north", "south", "east")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def rows(n: int, seed: int) -> list[tuple[str, ...]]:
    """Rows of a table with every kind of column, and missing values."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        load, site, oiled = rng.uniform(0, 10), SITES[rng.integers(3)], rng.random() < 0.5
        checked = np.datetime64("2024-01-01") + int(rng.integers(0, 700))
        wear = (2 * load if site == "north" else 25 - load) + 3 * oiled + rng.normal(0, 0.5)
        missing = i % 15 == 3
        found.append(
            (
                "" if missing else f"{load:.3f}",
                site,
                "yes" if oiled else "no",
                "" if i % 40 == 7 else str(checked),
                f"{wear:.3f}",
            )
        )
    return found


def write(path: Path, lines: list[tuple[str, ...]]) -> Path:
    path.write_text("\n".join([HEADER, *map(",".join, lines)]) + "\n")
    return path


@pytest.mark.parametrize(
    ("gate", "target"), [("softmax", "wear"), ("gaussian", "wear"), ("tree", "wear"), ("softmax", "site")]
)
def test_the_panel_says_what_predict_says(browser: Browser, tmp_path: Path, gate: str, target: str) -> None:
    for module in ("pyarrow", "skops", "jinja2", "matplotlib"):
        pytest.importorskip(module)
    from expertise.table import Request, fit_table, load_model, read_table, write_page

    request = Request(target=target, experts=3, gate=gate, seed=1)
    fitted = fit_table(write(tmp_path / "table.csv", rows(300, 0)), request, say=lambda text: None)
    fitted.save(tmp_path / "model.skops")
    model = load_model(tmp_path / "model.skops")
    page = write_page(model, tmp_path / "page.html")
    browser.open(page, 1200)

    new = read_table(write(tmp_path / "new.csv", rows(20, 5)))
    values = model.encoder.read(new, source="new.csv")
    asked = [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
    shown = browser.evaluate(f"{VALUES}({json.dumps(asked)})")
    assert browser.problems() == []

    X = model.encoder.encode(values)
    answer = model.mixture.predict_proba(X) if target == "site" else model.mixture.predict(X)[:, None]
    gate_proba, experts = model.mixture.gate_proba(X), model.mixture.predict_experts(X)
    for i, found in enumerate(shown):
        assert found[-1] == pytest.approx(answer[i].tolist(), rel=1e-6, abs=1e-6)
        for k in range(3):
            wanted = [gate_proba[i, k], *np.atleast_1d(experts[i, k])]
            assert found[k] == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_explained_rows_are_those_of_explain(tmp_path: Path) -> None:
    pytest.importorskip("skops")
    from expertise.table import Request, fit_table
    from expertise.table.explaining import moved
    from expertise.table.pages import record

    table = write(tmp_path / "table.csv", rows(300, 0))
    model = fit_table(table, Request(target="wear", experts=3, seed=1), say=lambda text: None)
    assert model.kept is not None
    shown = record(model, model.kept, "rows")
    assert {one.chosen for one in shown.explained} == set(shown.gate.argmax(axis=1).tolist())
    assert shown.explained[-1].row == int(shown.gate.max(axis=1).argmin())
    for one in shown.explained:
        of_gate, of_expert = moved(model, model.kept.values[[one.row]])
        np.testing.assert_allclose(one.gate_effects, of_gate[0])
        np.testing.assert_allclose(one.expert_effects, of_expert[0])
