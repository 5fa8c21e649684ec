"""The act on four regimes: its tables say what it claims, it repeats itself, and the core install does."""

import ast
import importlib.util
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ACT = Path(__file__).resolve().parent.parent / "examples" / "demo" / "10_regimes.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_10_regimes", ACT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run() -> str:
    done = subprocess.run([sys.executable, str(ACT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "an act of the demonstration shows no warnings"
    return done.stdout


@pytest.fixture(scope="module")
def said() -> str:
    return run()


def part(said: str, number: int) -> str:
    """Give the text of one numbered part."""
    found = re.search(rf"^{number}\. .*?(?=^{number + 1}\. |\Z)", said, re.MULTILINE | re.DOTALL)
    assert found, f"part {number} is not there"
    return found[0]


def numbers(text: str, label: str) -> list[float]:
    """Give the numbers in the row of a table that begins with ``label``."""
    (row,) = (line for line in text.splitlines() if line.strip().startswith(label))
    return [float(word) for word in re.findall(r"-?\d+\.\d+", row)]


@pytest.mark.slow
def test_every_expert_is_good_in_its_regime_alone(said: str) -> None:
    error = np.array([numbers(part(said, 1), f"expert {k} ") for k in range(4)])
    own, other = np.diag(error), error[~np.eye(4, dtype=bool)]
    assert own.max() / other.min() < 0.2
    assert own.max() < 0.15, "the noise is .1"
    assert f"{own.min():.3f} to {own.max():.3f}" in part(said, 1)


@pytest.mark.slow
def test_the_manager_is_right(said: str) -> None:
    share = np.array([numbers(part(said, 2), f"regime {r} ") for r in range(4)])
    np.testing.assert_allclose(share.sum(axis=1), 1, atol=2e-3)
    assert np.diag(share).min() >= 0.95
    (accuracy,) = re.findall(r"accuracy is (\d\.\d+)", part(said, 2))
    assert share.diagonal().min() <= float(accuracy) <= share.diagonal().max()
    assert float(accuracy) >= 0.95


@pytest.mark.slow
def test_only_the_weights_of_the_mixture_differ_between_cases(said: str) -> None:
    weights, answers = part(said, 3).split("Their answers")
    rows = [line.split("|") for line in weights.splitlines() if line.strip().startswith("case ")]
    assert len(rows) == 3
    gate = np.array([[float(g) for g in re.findall(r"\d\.\d\d", row[0])] for row in rows])
    np.testing.assert_allclose(gate.sum(axis=1), 1, atol=0.02)
    assert len({tuple(row) for row in gate}) == 3
    assert len({(stacked, boosted) for _, stacked, boosted in rows}) == 1
    blend, pick, stacked, boosted = numbers(answers, "RMSE on all new cases")
    assert max(blend, pick) < 0.2 * min(stacked, boosted)
    chosen = re.findall(r"^  case .*expert (\d)", answers, re.MULTILINE)
    assert [int(k) for k in chosen] == gate.argmax(axis=1).tolist()


@pytest.mark.slow
def test_few_data_are_for_one_model_and_many_for_the_mixture(said: str) -> None:
    few, many = (numbers(part(said, 4), f"N={n} ") for n in ("50", "3,000"))
    assert few[0] > few[1]
    assert many[0] < 0.1 < few[1]
    assert many[0] < 0.1 * many[1]
    assert "With 50 cases one linear model wins" in said
    assert "With 3,000 cases the mixture wins" in said
    assert "5 of 5" in next(line for line in said.splitlines() if "N=50 " in line), "all few fits warned"


@pytest.mark.slow
def test_it_repeats_itself_and_fits_a_terminal(said: str) -> None:
    assert run() == said
    assert max(len(line) for line in said.splitlines()) <= 100


def test_it_needs_the_core_install_only() -> None:
    core = {"expertise"}
    for needed in metadata.requires("expertise") or []:
        if "extra ==" not in needed:
            core.add(re.split(r"[^\w.-]", needed)[0].replace("scikit-learn", "sklearn"))
    core |= {"threadpoolctl"}  # comes with scikit-learn
    tree = ast.parse(ACT.read_text(encoding="utf-8"))
    text = ast.get_docstring(tree) or ""
    assert text.splitlines()[-1] == "Needs: core"
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] in core | set(sys.stdlib_module_names), name


def test_experts_are_matched_to_regimes_one_to_one() -> None:
    error = np.full((4, 4), 3.0)
    for regime, expert in enumerate((2, 0, 3, 1)):
        error[expert, regime] = 0.1
    error[2] = 0.2  # this one is good everywhere, and still gets one regime only
    error[2, 0] = 0.1
    assert load().match(error).tolist() == [2, 0, 3, 1]


def test_cases_come_from_one_task() -> None:
    act = load()
    one, again, other = (act.draw(400, seed) for seed in ([7], [7], [8]))
    np.testing.assert_array_equal(one.y, again.y)
    assert not np.array_equal(one.y, other.y)
    # least squares on the cases of one regime of one draw predicts those of another draw: the same function
    for r in range(4):
        design = [np.column_stack([np.ones(400), part.X])[part.regime == r] for part in (one, other)]
        coef = np.linalg.lstsq(design[0], one.y[one.regime == r], rcond=None)[0]
        assert np.std(other.y[other.regime == r] - design[1] @ coef) < 1.5 * act.NOISE
