"""The site of docs/: it builds strictly and asks nobody for anything, and its claims name what exists."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from report.browser import chromium

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PACKAGES = ("core", "mixture", "nn", "youtube8m", "table")
FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$", re.DOTALL)
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")


def title(page: Path) -> str:
    return str(page.relative_to(DOCS))


def public(package: str) -> list[str]:
    """Give the public names of a package of expertise."""
    if package in ("nn", "youtube8m"):
        pytest.importorskip("torch")
    module = importlib.import_module(f"expertise.{package}")
    names: list[str] = module.__all__
    return names


# ---- formulas


def hook(name: str) -> ModuleType:
    """Load a file of docs/_site."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "_site" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def formulas() -> ModuleType:
    pytest.importorskip("latex2mathml")
    pytest.importorskip("mkdocs")
    return hook("formulas")


def text_of(page: Path) -> str:
    """Give a page without code."""
    blocks = re.compile(r"^(`{3,}).*?^\1", re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", blocks.sub("", page.read_text()))


def test_every_formula_becomes_mathml(formulas: ModuleType) -> None:
    found = [
        (title(page), one) for page in sorted(DOCS.rglob("*.md")) for one in FORMULA.finditer(text_of(page))
    ]
    assert len(found) > 100
    for page, one in found:
        latex, display = (one["block"], "block") if one["block"] else (one["inline"], "inline")
        mathml = formulas.to_mathml(latex.strip(), display)
        assert mathml.startswith("<math"), page
        assert f'display="{display}"' in mathml


def test_a_formula_that_is_not_understood_stops_the_build(formulas: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"commands that are not known, \\nosuch: 'a \\\\nosuch b'"):
        formulas.to_mathml(r"a \nosuch b", "inline")


def test_names_of_functions_stand_apart_and_signs_belong_to_their_number(formulas: ModuleType) -> None:
    assert '<mi>log</mi><mspace width="0.17em"/><mi>g</mi>' in formulas.to_mathml(r"\log g", "inline")
    assert "mspace" not in formulas.to_mathml(r"\log(g)", "inline")
    assert '<mo form="prefix">' in formulas.to_mathml("x = -3", "inline")
    assert "prefix" not in formulas.to_mathml("x - 3", "inline")


# ---- docstrings


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    pytest.importorskip("griffe")
    return hook("docstrings")


def test_meanings_go_below_the_names(docstrings: ModuleType) -> None:
    ours = "Do it.\n\nParameters\n----------\na : how\n    much.\nb, c : where.\nd\n    why."
    there = "Do it.\n\nParameters\n----------\na\n    how\n    much.\nb, c\n    where.\nd\n    why."
    assert docstrings.for_griffe(ours) == there


def test_the_type_of_a_result_is_left_to_the_signature(docstrings: ModuleType) -> None:
    found = docstrings.for_griffe("Do it.\n\nReturns\n-------\n(n,) of numbers\n    and more.")
    assert found == "Do it.\n\nReturns\n-------\n:\n    (n,) of numbers\n    and more."


def test_doctests_get_a_section_or_a_fence(docstrings: ModuleType) -> None:
    alone = docstrings.for_griffe("Do it.\n\n>>> 1 + 1\n2")
    assert alone == "Do it.\n\n```pycon\n>>> 1 + 1\n2\n```"
    after = docstrings.for_griffe("Do it.\n\nRaises\n------\nValueError : never.\n\n>>> 1 + 1\n2")
    assert after.endswith("ValueError\n    never.\n\nExamples\n--------\n>>> 1 + 1\n2")


def test_fields_become_a_list(docstrings: ModuleType) -> None:
    found = docstrings.for_griffe("Some videos.\n\nids : strings.\nlabels : bool,\n    of all.")
    assert found == "Some videos.\n\n- `ids`: strings.\n- `labels`: bool, of all."


def test_two_attributes_of_one_line_are_two(docstrings: ModuleType) -> None:
    found = docstrings.for_griffe("A.\n\nAttributes\n----------\na_ : of x; b_ : of y.")
    assert found == "A.\n\nAttributes\n----------\na_\n    of x\nb_\n    of y."


# ---- tables


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return hook("tables")


def test_long_code_of_a_cell_breaks_between_its_parts(tables: ModuleType) -> None:
    long = "tests/test_site.py::test_long_code(of=&quot;a_cell&quot;)"
    shown = tables.on_page_content(f"<td><code>{long}</code></td>")
    broken = (
        "tests/<wbr>test_<wbr>site.py::<wbr>test_<wbr>long_<wbr>code(<wbr>of=<wbr>&quot;a_<wbr>cell&quot;)"
    )
    assert shown == f'<td class="text code"><code>{broken}</code></td>'
    assert shown.replace("<wbr>", "") == f'<td class="text code"><code>{long}</code></td>'


def test_a_cell_of_text_keeps_some_width_and_short_code_its_line(tables: ModuleType) -> None:
    text = "smallest noise variance, as a share of the variance of y, or of <code>gate_features</code>"
    assert tables.on_page_content(f"<td>{text}</td>") == f'<td class="text">{text}</td>'
    short = "<td><code>gate_features</code></td><td>4.08</td>"
    assert tables.on_page_content(short) == short


# ---- reference


def directives() -> set[str]:
    """Give what the pages of the reference are made of."""
    return {
        path for page in (DOCS / "reference").glob("*.md") for path in DIRECTIVE.findall(page.read_text())
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_a_reference_page(package: str) -> None:
    there = directives()
    missing = [name for name in public(package) if f"expertise.{package}.{name}" not in there]
    assert f"expertise.{package}" in there or not missing, f"docs/reference/{package}.md lacks {missing}"


def test_every_entry_of_the_reference_is_public() -> None:
    for path in directives():
        if path.count(".") == 2 and not path.startswith("expertise.report."):
            package, name = path.split(".")[1:]
            assert name in public(package), path


# ---- scope


def rows(page: str) -> Iterator[list[str]]:
    """Give the cells of the rows of all tables of a page, without their headings."""
    for line in (DOCS / page).read_text().splitlines():
        if line.startswith("| ") and not re.fullmatch(r"[| -]+", line):
            yield [cell.strip() for cell in line[2:].removesuffix("|").split(" | ")]


def claims() -> list[list[str]]:
    """Give claim, calls and tests of each row of the scope."""
    return [cells[-3:] for cells in rows("scope.md") if cells[-1].startswith("`tests/")]


def test_the_scope_is_whole() -> None:
    pytest.importorskip("torch")
    every_flag = importlib.import_module("youtube8m.test_every_flag")
    numbers = [cells[0] for cells in rows("scope.md") if re.match(r"A\d", cells[0])]
    assert numbers == [f"A{number}" for number in range(1, 26)]
    calls = {call for _, cell, _ in claims() for call in CODE.findall(cell)}
    assert {f"--{flag}" for flag in every_flag.FLAGS} <= calls
    scripts = {path.stem for path in (ROOT / "examples" / "worked").glob("[a-z]*.py")}
    assert {f"python examples/worked/{name}.py" for name in scripts} <= calls


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim[0][:40])
def test_the_tests_of_a_claim_exist(claim: list[str]) -> None:
    tests = CODE.findall(claim[2])
    assert tests
    for test in tests:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if name:
            assert name in functions, test
        else:  # the test file of a worked example
            assert any(one.startswith("test_") for one in functions), test


def names() -> dict[str, Any]:
    """Give what the calls of the scope may name."""
    pytest.importorskip("torch")
    packages = [importlib.import_module(f"expertise.{name}") for name in ("mixture", "nn")]
    return {name: getattr(package, name) for package in packages for name in package.__all__}


def check_call(call: str, known: dict[str, Any]) -> None:
    """Assert that what a call names exists, its arguments too."""
    objects = {"model": "MixtureOfExpertsRegressor", "neural": "NeuralMixtureRegressor", "routing": "Routing"}
    for node in ast.walk(ast.parse(call, mode="eval")):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            inspect.signature(known[node.func.id]).bind(*node.args, **given(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert isinstance(node.func.value, ast.Name)
            method = getattr(known[objects[node.func.value.id]], node.func.attr)
            inspect.signature(method).bind("self", *node.args, **given(node))
        elif isinstance(node, ast.Name) and node.id[0].isupper() and node.id != "X":
            assert node.id in known, node.id


def given(node: ast.Call) -> dict[str, ast.expr]:
    return {str(keyword.arg): keyword.value for keyword in node.keywords}


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim[0][:40])
def test_the_calls_of_a_claim_resolve(claim: list[str]) -> None:
    calls = CODE.findall(claim[1])
    assert calls
    for call in calls:
        if call.startswith("--"):
            flags = importlib.import_module("expertise.youtube8m.flags").Flags
            assert call[2:] in inspect.signature(flags).parameters
        elif call.startswith("python "):
            assert (ROOT / call.split()[1]).is_file(), call
        else:
            check_call(call, names())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("MixtureOfNothing()", KeyError),
        ("MixtureOfExpertsRegressor(gates=1)", TypeError),
        ("model.guess(X)", AttributeError),
    ],
)
def test_a_call_that_does_not_exist_is_found(call: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_call(call, names())


# ---- papers


def test_every_script_of_the_papers_is_on_their_page() -> None:
    text = (DOCS / "papers.md").read_text()
    scripts = {path.name for path in (ROOT / "examples" / "papers").glob("[a-z]*.py")}
    assert scripts
    assert not [name for name in scripts if f"](../examples/papers/{name})" not in text]


# figures of papers, and of runs of google/youtube-8m, which nothing here printed
NOT_OURS = {"95.9", "98.4", "2.0", "2.2", ".802", ".562", ".602", ".709"}


def decimals(text: str) -> set[str]:
    """Give the numbers with a point, but those of papers in the arXiv."""
    return set(re.findall(r"(?<![\w.])\d*\.\d+(?![\w.]*\w)", re.sub(r"\d{4}\.\d{5}|\]\([^)]*\)", "", text)))


def rounds_to(printed: str, shown: str) -> bool:
    """Say whether a figure that was printed, perhaps with more digits, is what is shown."""
    more, fewer = len(printed.partition(".")[2]), len(shown.partition(".")[2])
    return more >= fewer and abs(float(printed) - float(shown)) <= 0.5 * 10**-fewer + 1e-12


def test_every_figure_on_the_page_of_the_papers_was_printed() -> None:
    tables = [ROOT / "examples" / "papers" / "README.md"]
    tables += (ROOT / "benchmarks" / "results").glob("*.md")
    printed = set().union(*(decimals(page.read_text()) for page in tables))
    shown = decimals((DOCS / "papers.md").read_text()) - NOT_OURS
    assert len(shown) > 100
    unprinted = {one for one in shown if not any(rounds_to(other, one) for other in printed)}
    assert not unprinted, "no table of examples/papers or benchmarks/results has these figures"


# ---- the built site


class Reader(HTMLParser):
    """Reads what a page fetches by itself, and what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link":
            self.fetched.append(given.get("href") or "")
        elif tag != "a":
            self.fetched += [
                given[name] or "" for name in ("src", "srcset", "poster", "data") if name in given
            ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    return reader


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning is an error."""
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("latex2mathml")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        fetched = read(page).fetched
        assert fetched
        assert not [one for one in fetched if re.match(r"(https?:)?//", one)], page
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text()), style


@pytest.mark.slow
def test_every_page_is_in_the_site_and_what_makes_it_is_not(site: Path) -> None:
    config = importlib.import_module("mkdocs.config").load_config(str(ROOT / "mkdocs.yml"))

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for one in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(one)

    nav = list(pages(config["nav"]))
    assert len(nav) == len(set(nav))
    assert set(nav) == {title(page) for page in DOCS.rglob("*.md")}
    for page in nav:
        assert (site / page).with_suffix(".html").is_file(), page
    assert not list(site.rglob("*.py"))
    assert not (site / "_site").exists()


@pytest.mark.slow
def test_formulas_are_mathml_in_the_site(site: Path) -> None:
    for page in sorted(DOCS.rglob("*.md")):
        formulas = len(FORMULA.findall(text_of(page)))
        built = (site / title(page)).with_suffix(".html").read_text()
        assert built.count("<math") == formulas, title(page)
        assert "arithmatex" not in built


@pytest.mark.slow
def test_the_reference_says_what_the_docstrings_say(site: Path) -> None:
    for package in PACKAGES:
        shown = squeezed("".join(read(site / "reference" / f"{package}.html").text))
        for name in public(package):
            one = getattr(importlib.import_module(f"expertise.{package}"), name)
            if inspect.isclass(one) or inspect.isfunction(one):
                first = (inspect.getdoc(one) or "").split("\n")[0].rstrip(":")
                assert first, f"{name} has no docstring"
                assert squeezed(first) in shown, f"{package}.{name}"


def squeezed(text: str) -> str:
    """Leave out white space and the marks of code."""
    return re.sub(r"[\s`*]", "", text)


@pytest.mark.slow
def test_scripts_that_pages_link_to_can_be_read_in_the_site(site: Path) -> None:
    page = (site / "papers.html").read_text()
    assert 'href="source/examples/papers/meta_pi.py.html"' in page
    shown = "".join(read(site / "source" / "examples" / "papers" / "meta_pi.py.html").text)
    assert (ROOT / "examples" / "papers" / "meta_pi.py").read_text().split("\n")[0] in shown


@pytest.mark.slow
def test_on_a_phone_tables_and_formulas_scroll_and_the_page_does_not(site: Path) -> None:
    with chromium() as browser:
        for page in ("scope", "compared", "nn/from-peers", "concepts/mathematics", "mixture/em"):
            browser.open(site / f"{page}.html", 390)
            assert browser.evaluate("document.documentElement.scrollWidth") == 390, page
            narrow = """[...document.querySelectorAll('td.text')].filter(td => td.offsetWidth < 150).length"""
            assert browser.evaluate(narrow) == 0, page


@pytest.mark.slow
def test_pages_follow_the_system_from_light_to_dark(site: Path) -> None:
    with chromium() as browser:
        for system, scheme in (("light", "default"), ("dark", "slate"), ("light", "default")):
            browser.open(site / "start.html", 1200, scheme=system)
            assert browser.evaluate("document.body.dataset.mdColorScheme") == scheme


@pytest.mark.slow
def test_search_works_from_disk(site: Path) -> None:
    with chromium() as page:
        page.open(site / "index.html", 1200)
        page.evaluate("""(() => {
            const field = document.querySelector("input.md-search__input")
            field.focus(); field.value = "responsibility"
            field.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }))
        })()""")
        found = page.evaluate("""new Promise(done => {
            const look = () => {
                const titles = [...document.querySelectorAll(".md-search-result__item")]
                titles.length ? done(titles.length) : setTimeout(look, 100)
            }
            look()
        })""")
        asked, problems = page.requests(), page.problems()
    assert found > 0
    assert not problems
    assert asked
    assert all(url.startswith("file:") for url in asked)
