"""The layers point one way: models → ppl → samplers → ad; and inside ppl only `inference` knows samplers."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("ad", "samplers", "ppl", "models")
FILES = [path for layer in ORDER for path in sorted((ROOT / layer).glob("**/*.py"))]


def imported_layers(path: Path, root: Path = ROOT) -> set[str]:
    """The layers that a file imports from, by relative or absolute name."""
    package = path.relative_to(root).parts[:-1]
    layers = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.level else tuple((node.module or "").split("."))
            names = [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        for parts in names:
            inside = parts[1:] if parts[0] == "dualtape" else parts
            layers |= {inside[0]} & set(ORDER) if inside else set()
    return layers


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_layer_imports_only_those_below_it(path):
    layer = path.relative_to(ROOT).parts[0]
    allowed = set(ORDER[: ORDER.index(layer) + 1])
    assert imported_layers(path) <= allowed


def test_few_files_know_samplers():
    """The others know random numbers, coordinates and compiled programs alone."""
    tools = tuple(f"from ...samplers.{tool} import" for tool in ("random", "positions", "executables"))
    knowing = set()
    for path in (ROOT / "ppl").rglob("*.py"):
        if path.parent.name == "approximations":
            continue  # the faces of samplers/approximations
        lines = [line for line in path.read_text().splitlines() if "samplers" in line and "import" in line]
        knowing |= {path.name for line in lines if not line.startswith(tools)}
    assert knowing == {"inference.py", "arguments.py", "explanation.py", "sampler_check.py"}


def test_models_are_written_with_the_face_alone():
    for path in (ROOT / "models").glob("*.py"):
        assert imported_layers(path) <= {"ppl", "models"} or path.name == "demo.py"


def test_the_check_sees_a_wrong_arrow(tmp_path):
    wrong = tmp_path / "ad" / "wrong.py"
    wrong.parent.mkdir()
    wrong.write_text("from ..ppl.model import Model\nimport dualtape.samplers.base\n")
    assert imported_layers(wrong, tmp_path) == {"ppl", "samplers"}


def test_no_file_of_the_library_is_over_400_lines():
    assert {path.name for path in FILES if len(path.read_text().splitlines()) > 400} == set()
