"""The concept pages: their figures are there and described, and the numbers beside them are measured."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

CONCEPTS = Path(__file__).resolve().parent.parent / "docs" / "concepts"
PAGES = sorted(CONCEPTS.glob("*.md"))
DRAWN = sorted(file.stem for file in CONCEPTS.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
MEASURED = re.compile(r"<!-- measured: ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
BLOCKS = {found[1]: found[2] for page in PAGES for found in MEASURED.finditer(page.read_text())}
# libraries of linear algebra differ in the last digits, and fits of many experts then in their optimum
ABSOLUTE, RELATIVE = 0.02, 0.05


@cache
def script() -> ModuleType:
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(CONCEPTS))  # as python does for the folder of a script
    spec = importlib.util.spec_from_file_location("concept_figures", CONCEPTS / "figures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def shown_in_tables(block: str) -> dict[tuple[str, str], float]:
    """Give the numbers of all tables of a block: (row, column) -> value."""
    shown: dict[tuple[str, str], float] = {}
    columns: list[str] = []
    for line in block.splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not columns:
            columns = cells
        elif not set(name) <= set("-"):
            shown |= {(name, c): float(cell) for c, cell in zip(columns, cells, strict=True) if cell != "–"}
    return shown


def shown_in_prose(block: str) -> list[str]:
    """Give the numbers with a decimal point of a block, outside of its tables."""
    prose = "\n".join(line for line in block.splitlines() if not line.startswith("|"))
    return re.findall(r"-?\d+\.\d+", prose)


def differs(shown: float, measured: float) -> bool:
    return abs(shown - measured) > ABSOLUTE + RELATIVE * abs(measured)


def wrong_numbers(block: str, numbers: dict[str, dict[str, float]]) -> list[str]:
    """Give what a block says and the measurement does not."""
    wrong = [
        f"{row}, {column}: {value}; measured {numbers[row][column]:.4f}"
        for (row, column), value in shown_in_tables(block).items()
        if differs(value, numbers[row][column])
    ]
    measured = [value for row in numbers.values() for value in row.values()]
    table = {f"{value:.3f}" for value in shown_in_tables(block).values()}
    for text in shown_in_prose(block):
        # what the prose says stands in the table to the digit, or else was measured
        if f"{float(text):.3f}" not in table and all(differs(float(text), value) for value in measured):
            wrong.append(f"the prose says {text}, which is nowhere measured")
    return wrong


def test_every_figure_is_drawn_and_every_drawing_has_a_measurement() -> None:
    assert sorted(script().FIGURES) == DRAWN
    assert set(BLOCKS) == set(DRAWN), "each figure has its numbers on a page"
    for name in DRAWN:
        assert re.search(rf"^{name}  ", script().__doc__, re.MULTILINE), f"no line says what {name} measures"


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_stands_on_a_page_with_words_for_those_who_cannot_see_it(name: str) -> None:
    alts = [
        found[1]
        for page in PAGES
        for found in re.finditer(rf"!\[([^\]]*)\]\({name}\.svg\)", page.read_text())
    ]
    assert len(alts) == 1
    assert len(alts[0].split()) > 10


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_has_a_white_ground_and_text_that_can_be_searched(name: str) -> None:
    root = ElementTree.parse(CONCEPTS / f"{name}.svg").getroot()
    ground = next(root.iter(f"{SVG}path"))
    assert "#ffffff" in ground.attrib["style"]
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    corners = {tuple(map(float, one)) for one in re.findall(r"[ML] ([\d.]+) ([\d.]+)", ground.attrib["d"])}
    assert corners == {(0, height), (width, height), (width, 0), (0, 0)}, "the ground is the whole figure"
    assert sum(1 for _ in root.iter(f"{SVG}text")) > 3
    assert (CONCEPTS / f"{name}.svg").stat().st_size < 120_000


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_numbers_in_the_prose_stand_in_a_table_beside_it(name: str) -> None:
    table = list(shown_in_tables(BLOCKS[name]).values())
    assert table
    for text in shown_in_prose(BLOCKS[name]):
        digits = len(text.partition(".")[2])
        assert any(round(value, digits) == float(text) for value in table), text


def test_a_number_that_was_not_measured_is_found() -> None:
    block = "| | R2 |\n|---|---|\n| one | 0.50 |\n\nIt gets 0.50, not 0.70.\n"
    assert not wrong_numbers(block.replace(", not 0.70", ""), {"one": {"R2": 0.501}})
    assert wrong_numbers(block, {"one": {"R2": 0.501}}) == ["the prose says 0.70, which is nowhere measured"]
    assert "measured 0.9000" in wrong_numbers(block, {"one": {"R2": 0.9}})[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_numbers_of_a_figure_are_what_its_code_measures(name: str) -> None:
    if name == "objectives":
        pytest.importorskip("torch")
    measure, _ = script().FIGURES[name]
    numbers, _ = measure()
    assert not wrong_numbers(BLOCKS[name], numbers)


# ---- what the prose says of the numbers, whatever they are to the digit


def table(name: str) -> dict[tuple[str, str], float]:
    return shown_in_tables(BLOCKS[name])


def test_the_losses_of_the_mixture_stand_in_the_tables() -> None:
    oblique, ensembles, rows = table("oblique"), table("ensembles"), table("learning-curve")
    assert oblique["steps, 0", "mixture"] < oblique["steps, 0", "CART"]
    assert ensembles["mixture", "additive"] < ensembles["one additive model", "additive"]
    assert ensembles["mixture", "additive"] < ensembles["boosting", "additive"]
    assert rows["50 rows", "four experts"] > 1 > rows["50 rows", "one line"]


def test_the_weights_of_ensembles_do_not_depend_on_the_case() -> None:
    ensembles = table("ensembles")
    for name in ("bagging", "boosting", "stacking"):
        assert ensembles[name, "variance of the weights"] == 0
    assert ensembles["mixture", "variance of the weights"] > 0.05


def test_the_ends_of_the_spectrum_are_the_nearest_neighbour_and_the_mean() -> None:
    spectrum = table("spectrum")
    assert spectrum["width to 0", "200 constants"] == spectrum["others", "1-NN"]
    assert spectrum["width to infinity", "200 constants"] == spectrum["others", "mean"]
    assert spectrum["lines", "K=1"] == spectrum["others", "least squares"]


def test_cooperating_experts_are_worse_alone() -> None:
    found = table("objectives")
    assert found["cooperative", "one expert"] > 1.3 * found["likelihood", "one expert"]
    assert found["cooperative", "entropy"] > found["likelihood", "entropy"]


def test_no_step_of_em_fell() -> None:
    assert table("climbs")["12 starts", "steps that fell"] == 0
