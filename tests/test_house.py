"""The house: who imports whom, what importing costs, and a README that tells the truth about the tree."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "expertise"
MODULES = sorted(SOURCE.rglob("*.py"))

# The rooms, and which of them a room may import. Files that begin with _ at the top serve all of them.
MAY_IMPORT = {
    "cli": {"table", "youtube8m", "mixture", "nn", "report"},
    "table": {"mixture", "core", "report"},
    "youtube8m": {"nn", "report"},
    "mixture": {"core"},
    "nn": {"core"},
    "report": {"core"},
    "core": set(),
}
OUTSIDE = {
    "core": {"numpy", "scipy", "sklearn"},
    "mixture": {"numpy", "scipy", "sklearn", "threadpoolctl"},
    "report": {"numpy", "matplotlib", "jinja2"},
    "table": {"numpy", "scipy", "sklearn"},  # pyarrow and skops: see the test below
    "nn": {"torch", "numpy", "scipy", "sklearn", "safetensors"},
}


def imports(file: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Yield every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            yield str(node.module), node


def room(module: str) -> str:
    """Give the room of expertise.ROOM.more."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("file", MODULES, ids=name)
def test_imports_go_one_way(file: Path) -> None:
    here = room(name(file))
    for module, _ in imports(file):
        if module.split(".")[0] != "expertise":
            allowed = OUTSIDE.get(here)
            first = module.split(".")[0]
            assert allowed is None or first in allowed or first in sys.stdlib_module_names, (
                f"{file}: {module}"
            )
            continue
        there = room(module)
        if there == here or there == "" or there.startswith("_"):
            continue
        if here in ("", "__main__"):
            continue  # the package's own names, which load on first use, and python -m
        assert not here.startswith("_"), f"{file} serves all rooms, so it imports none: {module}"
        assert there in MAY_IMPORT[here], f"{file} imports {module}: {here} may import {MAY_IMPORT[here]}"


def test_nobody_imports_the_command_line() -> None:
    for file in MODULES:
        if file.name != "__main__.py" and file.parent.name != "cli":
            assert not any(module.startswith("expertise.cli") for module, _ in imports(file)), file


def required(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the package and the extra of every `expertise._optional.require` in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            module, extra = (ast.literal_eval(argument) for argument in node.args)
            yield module.split(".")[0], extra


def test_tables_take_optional_packages_by_the_extra_alone() -> None:
    """What a table needs beyond the core install is asked for by name, so that its lack names the extra."""
    found = {pair for file in (SOURCE / "table").glob("*.py") for pair in required(file)}
    assert found == {("pyarrow", "table"), ("skops", "table")}


@pytest.mark.parametrize(
    "family", ["youtube8m/models", "youtube8m/formats", "mixture/gates", "mixture/experts", "nn/routers"]
)
def test_members_of_a_family_do_not_import_one_another(family: str) -> None:
    folder = SOURCE / family
    package = "expertise." + family.replace("/", ".")
    members = [file for file in folder.glob("*.py") if not file.name.startswith("_")]
    assert members
    for file in members:
        inside = []
        for module, node in imports(file):
            if module == package and isinstance(node, ast.ImportFrom):
                inside += [f"{module}.{alias.name}" for alias in node.names]
            elif module.startswith(package):
                inside.append(module)
        assert all(module.removeprefix(package).startswith("._") for module in inside), f"{file}: {inside}"


@pytest.mark.parametrize(
    "statement",
    [
        "import expertise",
        "import expertise.cli",
        "import expertise.table",
        "import expertise.youtube8m",
        "from expertise.youtube8m import Flags",
        "import expertise.youtube8m.records, expertise.youtube8m.sample, expertise.youtube8m.cache",
        "import expertise.report",
    ],
)
def test_importing_loads_no_torch(statement: str) -> None:
    heavy = ["torch", "pyarrow", "matplotlib", "tensorboard", "onnx"]
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "statement",
    ["import expertise.core", "from expertise import MixtureOfExpertsRegressor, MixtureOfExpertsClassifier"],
)
def test_the_statistical_side_loads_no_torch(statement: str) -> None:
    """Pyarrow is not looked for: scikit-learn loads pandas where it is installed, and pandas loads it."""
    heavy = ["torch", "matplotlib", "skops"]
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_layer_needs_torch_alone() -> None:
    """Scikit-learn and SciPy are for the estimators and for one router that solves an assignment."""
    heavy = ["sklearn", "scipy", "expertise.core", "transformers", "matplotlib", "onnx"]
    use = """
layer = nn.MoE(nn.TopKRouter(4, 2), nn.Experts(2, 4, 8))
with nn.record_routing(layer) as routings:
    layer(torch.zeros(3, 4)).sum().backward()
"""
    code = (
        f"import sys, torch\nfrom expertise import nn\n{use}\nprint([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_needs_the_core_install_only() -> None:
    """`import expertise` loads nothing at all but the standard library."""
    code = "import sys; before = set(sys.modules); import expertise; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.split(".")[0] for module in ast.literal_eval(done.stdout)}
    assert loaded - set(sys.stdlib_module_names) == {"expertise"}


def readme_tree() -> set[str]:
    """Read the tree of the README: the names, by their indentation."""
    block = re.search(r"```\nexpertise/.*?\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "the README shows no tree"
    found, path = set(), list[str]()
    for line in block.group(1).splitlines():
        if not line.strip():
            continue
        entry = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        path = [*path[: depth - 1], entry.rstrip("/")]
        found.add("/".join(path))
        assert len(line.split()) > 1, f"README: {entry} has no word about what it is"
    return found


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    tree = readme_tree()
    for entry in tree:
        assert (ROOT / entry).exists(), f"README names {entry}, which is not there"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for file in files:
        parts = Path(file).parts
        shown = file if parts[0] in ("src", "benchmarks") else parts[0]
        if Path(file).name in ("__init__.py", "py.typed") and parts[0] == "src":
            shown = str(Path(file).parent)
        assert shown in tree or shown == ".gitignore", f"README does not name {shown}"


def test_no_room_holds_a_giant() -> None:
    for file in MODULES:
        assert len(file.read_text().splitlines()) <= 350, f"{file} is long: split it by meaning"
