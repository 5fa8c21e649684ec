"""The act on the sparse layer: its tables say what it claims, and all but the measured time repeats."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ACT = Path(__file__).resolve().parent.parent / "examples" / "demo" / "30_sparse_layer.py"


def run() -> str:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, str(ACT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "an act of the demonstration shows no warnings"
    return done.stdout


@pytest.fixture(scope="module")
def said() -> str:
    return run()


def part(said: str, number: int) -> str:
    """Give the text of one numbered part."""
    found = re.search(rf"^{number}\. .*?(?=^\d\. |\Z)", said, re.DOTALL | re.MULTILINE)
    assert found
    return found[0]


def test_regimes_go_to_experts_of_their_own(said: str) -> None:
    rows = re.findall(r"^  regime \d(.*)$", part(said, 1), re.MULTILINE)
    shares = [[float(value) for value in row.split()] for row in rows]
    assert len(shares) == 8
    for row in shares:
        assert abs(sum(row) - 1) < 0.005
    assert sum(max(row) > 0.9 for row in shares) >= 6
    assert len({row.index(max(row)) for row in shares}) >= 7


def test_the_cost_follows_the_active_experts(said: str) -> None:
    table = {
        line[:26].strip(): [int(number.replace(",", "")) for number in line[26:].split()[:2]]
        for line in part(said, 2).splitlines()[2:]
        if line.strip()
    }
    active, layer, whole = (
        table[name] for name in ("dense, equal work", "16 experts, 2 a token", "dense, equal size")
    )
    assert layer[0] / whole[0] == pytest.approx(1, abs=0.01), "as many parameters as the large block"
    assert layer[1] / active[1] == pytest.approx(1, abs=0.01), "as much work as the small one"
    assert whole[1] == 8 * active[1]


def test_balance_evens_the_load(said: str) -> None:
    rows = re.findall(r"^  start \d +(.*)$", part(said, 3), re.MULTILINE)
    found = [
        [[float(v) for v in cell.split(", error ")] for cell in re.split(r"\s{2,}", row)] for row in rows
    ]
    assert len(found) == 3
    for none, loss, bias in found:
        assert loss[0] < none[0]
        assert bias[0] < none[0]
        assert loss[1] < none[1]
    assert max(none[0] for none, _, _ in found) > 4, "without balance experts die"
    largest = [f"{max(start[i][0] for start in found):.1f}" for i in range(3)]
    text = " ".join(part(said, 3).split())
    assert (
        f"up to {largest[0]} times the mean; with the loss {largest[1]}, with the bias {largest[2]}" in text
    )


def test_all_but_the_time_repeats(said: str) -> None:
    def without_time(text: str) -> str:
        return re.sub(r" *[\d.]+x$", "", text, flags=re.MULTILINE)

    assert without_time(run()) == without_time(said)
