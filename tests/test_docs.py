"""The pages of docs/: their examples run, their links lead somewhere, and they name all that there is."""

import doctest
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expertise import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor
from expertise.mixture.experts import CLASSIFICATION_EXPERTS, REGRESSION_EXPERTS
from expertise.mixture.gates import GATES

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OPTIONAL = ("pyarrow", "skops")  # an example that needs one of these is skipped without it

ESTIMATORS = {"regressor": MixtureOfExpertsRegressor, "classifier": MixtureOfExpertsClassifier}
PARTS = [
    *((f"gates/{name}.md", part) for name, part in GATES.items()),
    *((f"experts/{name}.md", part) for name, part in REGRESSION_EXPERTS.items()),
    *((f"experts/{name}.md", part) for name, part in CLASSIFICATION_EXPERTS.items()),
]


def title(page: Path) -> str:
    return str(page.relative_to(DOCS))


def examples(page: Path) -> Iterator[tuple[int, str]]:
    """Give the ```python blocks of a page, each with the number of its first line."""
    text = page.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start(1)].count("\n") + 1, found[1]


def prose(page: Path) -> str:
    """Give a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def mathematics(page: Path) -> str:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return "\n".join(re.findall(r"\$\$.*?\$\$|\$[^$\n]+\$", text, re.DOTALL))


def anchor(heading: str) -> str:
    """Make the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def defaults(function: Any) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }


def table_row(page: Path, name: str) -> list[str]:
    """Give the cells of the row of a table whose first cell is this name in code."""
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == f"`{name}`":
            return cells
    raise AssertionError(f"{title(page)} has no table row for {name}")


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_the_examples_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OPTIONAL:
        if any(name in example for _, example in examples(page)):
            pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": title(page)}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    checked = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line, example in examples(page):
            if example.lstrip().startswith(">>>"):
                test = doctest.DocTestParser().get_doctest(example, names, title(page), str(page), line)
                runner.run(test, out=said.append, clear_globs=False)
                names.update(test.globs)
                checked = checked or any(one.want for one in test.examples)
            else:
                exec(compile("\n" * line + example, str(page), "exec"), names)
                checked = checked or "assert " in example
    assert not said, "\n".join(said)
    assert checked, "no example of this page checks anything"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), target
        if heading:
            found = [anchor(one) for one in re.findall(r"^#+ (.*)$", prose(there), re.MULTILINE)]
            assert heading in found, f"{target}: the headings are {found}"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "mixture" / "index.md").read_text()
    linked = {(DOCS / "mixture" / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index)}
    assert {page for page in PAGES if page.name != "index.md"} <= linked


@pytest.mark.parametrize(("page", "part"), PARTS, ids=[f"{page}-{part.__name__}" for page, part in PARTS])
def test_every_gate_and_expert_has_a_page_with_all_its_options(page: str, part: type) -> None:
    text = (DOCS / "mixture" / page).read_text()
    assert part.__name__ in text
    inside = (
        "settings",
        "betas",
        "columns",
        "moves",
        "seen",
        "fitted",
        "held_out",
        "smallest_sigma",
        "model",
    )
    for option, default in defaults(part).items():
        if option not in inside:
            assert table_row(DOCS / "mixture" / page, option)[1] == f"`{default!r}`", option


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_argument_stands_on_the_page_of_its_estimator_with_its_default(name: str) -> None:
    page, estimator = DOCS / "mixture" / f"{name}.md", ESTIMATORS[name]
    for argument, default in defaults(estimator).items():
        assert table_row(page, argument)[1] == f"`{default!r}`", argument
    for argument in defaults(estimator.fit):
        table_row(page, argument)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_method_and_learned_attribute_stands_on_the_page_of_its_estimator(name: str) -> None:
    estimator = ESTIMATORS[name]
    text = (DOCS / "mixture" / f"{name}.md").read_text()
    X = np.linspace(-1, 1, 40)[:, None]
    y = np.abs(X[:, 0]) if name == "regressor" else X[:, 0] + np.tile([0, 0.5], 20) > 0.1
    learned = vars(estimator(1).fit(X, y))
    shown = [one for one in (*learned, *dir(estimator)) if one.endswith("_") and not one.startswith("_")]
    from_sklearn = re.compile(r"(get|set)_.*")  # parameters, metadata routing: as in all of scikit-learn
    methods = [
        one
        for one, value in inspect.getmembers(estimator, callable)
        if not one.startswith("_") and not from_sklearn.fullmatch(one)
    ]
    missing = [one for one in (*shown, *methods) if f"`{one}" not in text]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_formulas_are_written_so_that_github_shows_them(page: Path) -> None:
    # Markdown takes the backslash from these before the formula is read
    assert not re.findall(r"\\[,;!{}]", mathematics(page))
    assert prose(page).count("$$") % 2 == 0
    for formula in re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", re.sub(r"`[^`\n]*`", "", prose(page))):
        assert formula == formula.strip(), f"a space beside the dollar: {formula!r}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_one_word_for_each_thing(page: Path) -> None:
    if page.name == "from-r.md":  # names what others call it
        return
    assert not re.findall(r"\b(components?|voting)\b", prose(page), re.IGNORECASE)
