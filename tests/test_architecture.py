"""The house as docs/architecture.md draws it: arrows only down, one library one door."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A floor may import itself and the floors that stand behind it.
FLOORS = ["api", "serving", "training", "engine", "headlines", "store", "settings"]
DOORS = {
    "fastapi": {"api"},
    "starlette": {"api"},
    "uvicorn": {"api"},
    "torch": {"engine", "training"},
    "transformers": {"engine", "training"},
    "datasets": {"training"},
    "rouge_score": {"training"},
    "prometheus_client": {"serving", "api"},
    "typer": {"cli"},
    "selectolax": {"headlines"},
}


def imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor_of(file: Path) -> str:
    place = file.relative_to(ROOT / "app").parts
    return place[0].removesuffix(".py")


FILES = sorted((ROOT / "app").rglob("*.py"))


def test_no_import_runs_upward() -> None:
    for file in FILES:
        if (floor := floor_of(file)) not in FLOORS:
            continue
        above = set(FLOORS[: FLOORS.index(floor)]) | {"cli", "logs"}
        upward = {name for name in imports(file) for other in above if name.startswith(f"app.{other}")}
        assert not upward, file


def test_each_library_has_one_door() -> None:
    for file in FILES:
        for name in imports(file):
            allowed = DOORS.get(name.partition(".")[0])
            assert allowed is None or floor_of(file) in allowed, f"{file} imports {name}"


def test_only_settings_reads_the_environment() -> None:
    readers = {file.name for file in FILES if {"os.environ", "os.getenv"} & uses(file)}
    assert readers == {"settings.py"}


def uses(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_file_says_what_it_is_for() -> None:
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_the_picture_names_every_file() -> None:
    picture = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for file in FILES:
        assert file.name == "__init__.py" or file.name in picture, f"docs/architecture.md lacks {file.name}"
