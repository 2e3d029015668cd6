"""The house's floor plan, read from the syntax trees: consensus <- ml <- node <- scripts, tests.

`consensus/` answers the same on every machine, so it may import only what cannot see a clock, a
socket, a disk, a process or chance, and it computes in integers.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# A list of what is allowed, since no list of what is forbidden is ever complete.
PURE_STANDARD_LIBRARY = {
    *("__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib", "copy"),
    *("dataclasses", "enum", "functools", "hashlib", "heapq", "hmac", "itertools", "json", "math", "numbers"),
    *("operator", "re", "string", "struct", "textwrap", "types", "typing", "warnings", "zlib"),
}
MAY_IMPORT = {
    "consensus": {"consensus", "numpy", "msgpack", "coincurve", "ecdsa", *PURE_STANDARD_LIBRARY},
    "ml": {"ml", "consensus"},
    "node": {"node", "ml", "consensus"},
}
OUR_ROOMS = {"consensus", "ml", "node", "tests", "scripts"}
IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint", "float", "id"}
NUMPY_IMPURE = {"random", "save", "load", "savez", "loadtxt", "savetxt", "memmap", "fromfile"}
LAZY_ONLY = {"lightgbm", "sklearn", "scipy"}  # the `train` extra: absent on a node that only validates


def list_modules(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}"


def find_imports(tree: ast.AST, path: Path) -> Iterator[tuple[str, str]]:
    """(place, dotted name) of every import, also inside functions and behind TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name_place(path, node), alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # `from . import x` stays in its own package unless it climbs out of it
                package = path.relative_to(REPOSITORY).parts[: -node.level]
                base = ".".join([*package, base]).strip(".")
            yield from ((name_place(path, node), f"{base}.{alias.name}") for alias in node.names)


def find_climbing(room: str, tree: ast.AST, path: Path) -> list[str]:
    allowed = MAY_IMPORT[room]
    complaints = []
    for place, name in find_imports(tree, path):
        top = name.split(".", maxsplit=1)[0]
        forbidden = top not in allowed if room == "consensus" else top in OUR_ROOMS - allowed
        if forbidden:
            complaints.append(f"{place} imports {name}")
    return complaints


def find_impurities(tree: ast.AST, path: Path) -> list[str]:
    complaints = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                complaints.append(f"{name_place(path, node)} calls {name}()")
            case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=name) if name in NUMPY_IMPURE:
                complaints.append(f"{name_place(path, node)} uses numpy.{name}")
            case ast.ImportFrom(module="numpy", names=names) if {
                alias.name for alias in names
            } & NUMPY_IMPURE:
                complaints.append(f"{name_place(path, node)} imports what numpy offers for chance or files")
            case ast.Constant(value=float() | complex()):
                complaints.append(f"{name_place(path, node)} holds the float {node.value!r}")
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                complaints.append(f"{name_place(path, node)} divides with /, which gives a float")
    return complaints


def find_top_level_training_imports(tree: ast.Module, path: Path) -> list[str]:
    inside = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {place for function in inside for place, _ in find_imports(function, path)}
    return [
        f"{place} imports {name} at top level"
        for place, name in find_imports(tree, path)
        if name.split(".", maxsplit=1)[0] in LAZY_ONLY and place not in lazy
    ]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way_only(room: str) -> None:
    modules = list_modules(room)
    assert modules, f"{room}/ holds no module: is this the whole checkout?"
    assert [line for path in modules for line in find_climbing(room, parse(path), path)] == []


def test_consensus_neither_reads_the_world_nor_computes_in_floats() -> None:
    assert [line for path in list_modules("consensus") for line in find_impurities(parse(path), path)] == []


def test_training_libraries_are_imported_only_where_they_are_used() -> None:
    modules = [path for room in MAY_IMPORT for path in list_modules(room)]
    assert [line for path in modules for line in find_top_level_training_imports(parse(path), path)] == []


@pytest.mark.parametrize(
    "source",
    [
        *(f"import {name}" for name in ("time", "random", "asyncio", "socket", "os", "logging", "secrets")),
        *(
            f"import {name}"
            for name in ("pathlib", "threading", "datetime", "uuid", "ml.forest", "tests.fakes")
        ),
        "from os import urandom",
        "from node.wire import frame",
        "def f():\n    import time",
        "from .. import node",
    ],
)
def test_the_reader_sees_every_way_to_climb(source: str) -> None:
    path = REPOSITORY / "consensus" / "ledger" / "example.py"
    if source == "from .. import node":
        path = REPOSITORY / "consensus" / "example.py"
    assert find_climbing("consensus", ast.parse(source), path)


@pytest.mark.parametrize(
    "source", ["open('x')", "a = b / c", "a /= b", "x = 0.5", "np.random.rand()", "from numpy import random"]
)
def test_the_reader_sees_impurities(source: str) -> None:
    assert find_impurities(ast.parse(source), REPOSITORY / "consensus" / "example.py")


def test_the_reader_allows_what_is_pure() -> None:
    source = "from consensus.ledger import scoring\nfrom . import state\nimport numpy as np\nx = 7 // 2"
    path = REPOSITORY / "consensus" / "ledger" / "example.py"
    assert find_climbing("consensus", ast.parse(source), path) == []
    assert find_impurities(ast.parse(source), path) == []


def test_the_allowed_standard_library_exists() -> None:
    assert PURE_STANDARD_LIBRARY - {"__future__"} <= set(sys.stdlib_module_names)
