"""The pages of docs/: their examples run, their links lead somewhere, and they name all that there is."""

import dataclasses
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
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
ROOMS = ("concepts", "examples", "mixture", "nn", "reference", "table", "youtube8m")
# pages that list, and need no example: most of what they name is held by tests/test_site.py
LISTS = {DOCS / name for name in ("papers.md", "compared.md", "scope.md", "measured.md")}
LISTS |= {DOCS / "youtube8m" / "real-data.md", *(DOCS / "reference").glob("*.md")}
NN = DOCS / "nn"
YOUTUBE8M = DOCS / "youtube8m"
# a page with an example that names one of these is skipped without it
OPTIONAL = ("pyarrow", "skops", "torch", "transformers", "onnxruntime", "matplotlib")

ESTIMATORS = {"regressor": MixtureOfExpertsRegressor, "classifier": MixtureOfExpertsClassifier}
PARTS = [
    *((f"gates/{name}.md", part) for name, part in GATES.items()),
    *((f"experts/{name}.md", part) for name, part in REGRESSION_EXPERTS.items()),
    *((f"experts/{name}.md", part) for name, part in CLASSIFICATION_EXPERTS.items()),
]


def title(page: Path) -> str:
    return str(page.relative_to(DOCS))


def blocks(page: Path, language: str) -> Iterator[tuple[int, str, str]]:
    """Give the blocks of a page in a language (a pattern): number of the first line, language, code."""
    text = page.read_text()
    for found in re.finditer(rf"^```({language})\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start(2)].count("\n") + 1, found[1], found[2]


def examples(page: Path) -> Iterator[tuple[int, str]]:
    """Give the ```python blocks of a page, each with the number of its first line."""
    yield from ((line, code) for line, _, code in blocks(page, "python"))


def pages_by_time() -> Iterator[Any]:
    """Give all pages; those with commands (```sh) are slow."""
    for page in PAGES:
        yield pytest.param(page, marks=[pytest.mark.slow] if any(blocks(page, "sh")) else [])


def run_commands(commands: str, folder: Path) -> None:
    """Run the lines of a ```sh block in a folder that has the repository's examples/."""
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(DOCS.parent / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


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


def shown(default: object) -> str:
    """Give how a table shows a default."""
    return "required" if default is inspect.Parameter.empty else f"`{default!r}`"


def table_rows(page: Path, name: str) -> list[list[str]]:
    """Give the cells of each row of a table whose first cell is this name in code; there is one at least."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in page.read_text().splitlines()
        if line.startswith("|")
    ]
    found = [cells for cells in rows if cells[0] == f"`{name}`"]
    assert found, f"{title(page)} has no table row for {name}"
    return found


def table_row(page: Path, name: str) -> list[str]:
    return table_rows(page, name)[0]


@pytest.mark.parametrize("page", list(pages_by_time()), ids=title)
def test_the_examples_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if {NN, YOUTUBE8M} & set(page.parents):
        pytest.importorskip("torch")
    for name in OPTIONAL:
        if any(re.search(rf"\b{name}\b", example) for _, example in examples(page)):
            pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": title(page)}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    checked = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line, language, example in blocks(page, "python|sh"):
            if language == "sh":
                run_commands(example, tmp_path)
            elif example.lstrip().startswith(">>>"):
                test = doctest.DocTestParser().get_doctest(example, names, title(page), str(page), line)
                runner.run(test, out=said.append, clear_globs=False)
                names.update(test.globs)
                checked = checked or any(one.want for one in test.examples)
            else:
                exec(compile("\n" * line + example, str(page), "exec"), names)
                checked = checked or bool(re.search(r"\bassert", example))
    assert not said, "\n".join(said)
    assert checked or page in LISTS, "no example of this page checks anything"


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


def linked(page: Path) -> set[Path]:
    return {(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())}


@pytest.mark.parametrize("room", ROOMS)
def test_every_page_is_in_the_index_of_its_room(room: str) -> None:
    index = DOCS / room / "index.md"
    assert {page for page in (DOCS / room).rglob("*.md") if page != index} <= linked(index)


def test_the_first_page_leads_to_every_room() -> None:
    first = DOCS / "index.md"
    assert {DOCS / room / "index.md" for room in ROOMS} <= linked(first)
    assert {page for page in PAGES if page.parent == DOCS} - {first} <= linked(first)
    assert {page.relative_to(DOCS).parts[0] for page in PAGES if page.parent != DOCS} == set(ROOMS)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_formulas_are_written_so_that_github_shows_them(page: Path) -> None:
    # Markdown takes the backslash from these before the formula is read
    assert not re.findall(r"\\[,;!{}]", mathematics(page))
    assert prose(page).count("$$") % 2 == 0
    for formula in re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", re.sub(r"`[^`\n]*`", "", prose(page))):
        assert formula == formula.strip(), f"a space beside the dollar: {formula!r}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_one_word_for_each_thing(page: Path) -> None:
    if page.name in ("from-r.md", "from-peers.md"):  # name what others call it
        return
    assert not re.findall(r"\b(components?|voting)\b", prose(page), re.IGNORECASE)


# ---- expertise.mixture


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
            assert table_row(DOCS / "mixture" / page, option)[1] == shown(default), option


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_argument_stands_on_the_page_of_its_estimator_with_its_default(name: str) -> None:
    page, estimator = DOCS / "mixture" / f"{name}.md", ESTIMATORS[name]
    for argument, default in defaults(estimator).items():
        assert table_row(page, argument)[1] == shown(default), argument
    for argument in defaults(estimator.fit):
        table_row(page, argument)


def unnamed(estimator: type, fitted: object, page: Path) -> list[str]:
    """Give the learned attributes and the methods that a page does not name."""
    from_sklearn = re.compile(r"(get|set)_.*")  # parameters, metadata routing: as in all of scikit-learn
    learned = [one for one in (*vars(fitted), *dir(estimator)) if one.endswith("_") and one[0] != "_"]
    methods = [
        one
        for one, value in inspect.getmembers(estimator, callable)
        if not one.startswith("_") and not from_sklearn.fullmatch(one)
    ]
    text = page.read_text()
    return [one for one in (*learned, *methods) if f"`{one}" not in text]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_method_and_learned_attribute_stands_on_the_page_of_its_estimator(name: str) -> None:
    estimator = ESTIMATORS[name]
    X = np.linspace(-1, 1, 40)[:, None]
    y = np.abs(X[:, 0]) if name == "regressor" else X[:, 0] + np.tile([0, 0.5], 20) > 0.1
    assert not unnamed(estimator, estimator(1).fit(X, y), DOCS / "mixture" / f"{name}.md")


# ---- expertise.nn: torch is imported in here only

ROUTER_PAGES = sorted((NN / "routers").glob("*.md"))
# page -> what stands there with all its arguments and their defaults
NN_SIGNATURES = {
    "layer.md": ("layer.MoE", "layer.MoE.forward"),
    "soft.md": ("soft.SoftMoE",),
    "experts.md": ("experts.Experts", "experts.ExpertList"),
    "balance.md": ("balance.load_balance_loss", "loss_free.LossFreeBias"),
    "only-picked.md": ("picking.only_picked",),
    "statistics.md": ("statistics.routing_statistics",),
    "exchange.md": (
        "exchange.from_transformers",
        "exchange.to_transformers",
        "exchange.upcycle",
        "exchange.prune",
        "exchange.merge",
        "exchange.FeedForward",
        "exchange.save_layer",
        "exchange.load_layer",
        "exchange.dense_form",
        "exchange.to_onnx",
    ),
    "estimators.md": (
        "estimators.NeuralMixtureRegressor",
        "estimators.NeuralMixtureClassifier",
        "estimators.NeuralMixtureRegressor.fit",
        "estimators.NeuralMixtureRegressor.add_expert",
        "estimators.NeuralMixtureRegressor.replace_expert",
    ),
}
# page -> values whose fields and properties it names
NN_VALUES = {
    "layer.md": ("routing.Routing",),
    "soft.md": ("routing.SoftRouting",),
    "statistics.md": ("statistics.LayerStatistics",),
    "exchange.md": ("exchange.PruneReport",),
}


def in_nn(path: str) -> Any:
    """Give a member of expertise.nn by its path, MODULE.NAME or MODULE.NAME.METHOD."""
    pytest.importorskip("torch")
    module, *names = path.split(".")
    found: Any = importlib.import_module(f"expertise.nn.{module}")
    for name in names:
        found = getattr(found, name)
    return found


def test_every_router_has_a_page() -> None:
    assert {page.stem for page in ROUTER_PAGES} == set(in_nn("routers.ROUTERS"))


@pytest.mark.parametrize("page", ROUTER_PAGES, ids=title)
def test_the_page_of_a_router_has_its_class_its_options_its_formula_and_when_to_use_it(page: Path) -> None:
    router, text = in_nn("routers.ROUTERS")[page.stem], page.read_text()
    assert f"`{router.__name__}(" in text
    assert "$$" in text
    for heading in ("Formula", "Options", "Example", "When to use it", "Pitfalls"):
        assert f"\n## {heading}\n" in text, heading
    for option, default in defaults(router).items():
        assert table_row(page, option)[1] == shown(default), option
    options = re.search(r"^\| option .*?\n\n", text, re.DOTALL | re.MULTILINE)
    assert options
    assert set(re.findall(r"^\| `(\w+)`", options[0], re.MULTILINE)) == set(defaults(router))


def test_the_table_of_routers_says_what_their_classes_say() -> None:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (NN / "index.md").read_text().splitlines()
        if re.match(r"\| \[\w+\]\(routers/", line)
    ]
    said = {cells[0]: tuple(cell == "yes" for cell in cells[2:5]) for cells in rows}
    assert all(cell in ("yes", "no") for cells in rows for cell in cells[2:5])
    assert said == {
        f"[{name}](routers/{name}.md)": (
            router.differentiable,
            router.row_independent,
            router.needs_token_ids,
        )
        for name, router in in_nn("routers.ROUTERS").items()
    }


@pytest.mark.parametrize(
    ("page", "path"), [(page, path) for page, paths in NN_SIGNATURES.items() for path in paths]
)
def test_every_argument_of_nn_stands_on_its_page_with_its_default(page: str, path: str) -> None:
    for argument, default in defaults(in_nn(path)).items():
        found = [cells[1] for cells in table_rows(NN / page, argument)]
        assert shown(default) in found, argument


@pytest.mark.parametrize(
    ("page", "path"), [(page, path) for page, paths in NN_VALUES.items() for path in paths]
)
def test_every_field_of_a_value_of_nn_stands_on_its_page(page: str, path: str) -> None:
    value, text = in_nn(path), (NN / page).read_text()
    properties = [name for name, one in vars(value).items() if isinstance(one, property)]
    fields = [field.name for field in dataclasses.fields(value)]
    assert not [name for name in (*fields, *properties) if f"`{name}`" not in text]


def test_every_public_name_of_nn_stands_on_some_page() -> None:
    pytest.importorskip("torch")
    public = {*importlib.import_module("expertise.nn").__all__}
    public |= {*in_nn("exchange.__all__"), *in_nn("objectives.OBJECTIVES")}
    text = "\n".join(page.read_text() for page in NN.rglob("*.md"))
    missing = {name for name in public if not re.search(rf"[`\"']{name}[`\"'(]", text)}
    assert not missing


def test_every_block_of_transformers_stands_on_the_page_of_the_exchange() -> None:
    text = (NN / "exchange.md").read_text()
    assert not [name for name in in_nn("exchange.BLOCKS") if f"`{name}`" not in text]


@pytest.mark.parametrize("name", ["NeuralMixtureRegressor", "NeuralMixtureClassifier"])
def test_every_method_and_learned_attribute_of_the_neural_mixtures_stands_on_their_page(name: str) -> None:
    estimator = in_nn(f"estimators.{name}")
    X = np.linspace(-1, 1, 40)[:, None]
    y = np.abs(X[:, 0]) if name == "NeuralMixtureRegressor" else (np.abs(X[:, 0]) > 0.5).astype(int)
    fitted = estimator(2, expert_hidden=(), epochs=2, random_state=0).fit(X, y)
    assert not unnamed(estimator, fitted, NN / "estimators.md")


def test_the_layer_in_forty_lines_has_no_more() -> None:
    layer = next(code for _, code in examples(NN / "forty-lines.md") if code.startswith("class SparseLayer"))
    assert len(layer.splitlines()) <= 40


# ---- expertise.youtube8m


def test_every_model_stands_in_the_table_with_its_flags() -> None:
    pytest.importorskip("torch")
    from expertise.youtube8m.flags import Flags
    from expertise.youtube8m.model_flags import OPTIONS
    from expertise.youtube8m.models import MODELS

    page = YOUTUBE8M / "models.md"
    said = {flag for model in MODELS for flag in re.findall(r"`(\w+)`", table_row(page, model)[2])}
    assert said - {"MoeModel"} == {name for name in OPTIONS if name != "video_level_classifier_model"}
    assert all(name in {field.name for field in dataclasses.fields(Flags)} for name in said - {"MoeModel"})
