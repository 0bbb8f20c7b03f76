"""Which of the project's own files a module imports, and which packages they are in, by parsing."""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path


def imported_files(script: Path, root: Path) -> set[str]:
    """`script` and every module of the project that it imports, directly or not.

    Paths are relative to `root`, with forward slashes. A package's `__init__.py` counts where
    something is imported from it or from one of its modules: Python runs it then.
    """
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += direct_imports(file, root)
    return {file.relative_to(root).as_posix() for file in found}


def direct_imports(file: Path, root: Path) -> list[Path]:
    """The modules of the project that a file names in its imports, and their packages."""
    parts = [name.split(".") for name in _imported_names(file)]
    modules = {tuple(p[:n]) for p in parts for n in range(1, len(p) + 1)}
    paths = [root.joinpath(*module) for module in sorted(modules)]
    files = [f for path in paths for f in (path.with_suffix(".py"), path / "__init__.py")]
    # The library's own __init__ imports the rest lazily, for `cocoseg.load` alone.
    return [f for f in files if f.is_file() and f != root / "cocoseg/__init__.py"]


def third_party_imports(files: Iterable[Path]) -> set[str]:
    """The top-level modules that files import, without Python's own and this project's."""
    own = set(sys.stdlib_module_names) | {"cocoseg", "stages"}
    return {name.partition(".")[0] for file in files for name in _imported_names(file)} - own


def _imported_names(file: Path) -> list[str]:
    """All that a file's imports may mean: modules, and what is taken from them, in full."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: write imports in full"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


NO_DEPENDENCY = {"cocoseg/params/__init__.py", "cocoseg/params/runtime.py"}
"""Code that stages import but that changes no result."""


def declared_dependency(file: str) -> str | None:
    """How a stage declares a file that it imports.

    The package `cocoseg/NAME`, the file for scripts and for sections of parameters, or None.
    """
    first, *rest = file.split("/")
    if file in NO_DEPENDENCY:
        return None
    is_package = first == "cocoseg" and len(rest) > 1 and rest[0] != "params"
    return f"cocoseg/{rest[0]}" if is_package else file


def declared_dependencies(script: Path, root: Path) -> set[str]:
    """The code on which a stage's `script` depends, as dvc.yaml declares it."""
    declared = map(declared_dependency, imported_files(script, root))
    return {path for path in declared if path is not None}
