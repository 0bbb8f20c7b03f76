"""The imports and definitions of modules, found by parsing."""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path


def imported_files(script: Path, root: Path) -> set[str]:
    """The script and every module of the project that it imports, directly or indirectly.

    Paths are relative to `root`, with forward slashes. They include the `__init__.py` of each
    package from which something is imported, because Python runs it.
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
    """The modules of the project that a file imports directly, and their packages."""
    parts = [name.split(".") for name in _imported_names(file)]
    modules = {tuple(p[:n]) for p in parts for n in range(1, len(p) + 1)}
    paths = [root.joinpath(*module) for module in sorted(modules)]
    files = [f for path in paths for f in (path.with_suffix(".py"), path / "__init__.py")]
    # cocoseg/__init__.py imports its public names only on first use.
    return [f for f in files if f.is_file() and f != root / "cocoseg/__init__.py"]


def third_party_imports(files: Iterable[Path]) -> set[str]:
    """The top-level modules that files import, except Python's own and this project's."""
    return {name.partition(".")[0] for name in third_party_modules(files)}


def third_party_modules(files: Iterable[Path]) -> set[str]:
    """The modules of other projects that files import, with full names."""
    own = set(sys.stdlib_module_names) | {"cocoseg", "stages", "tests"}
    nodes = [node for file in files for node in _imports(file)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {module for module in modules if module.partition(".")[0] not in own}


def defined_names(file: Path) -> set[str]:
    """The functions, classes and variables that a module defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _imported_names(file: Path) -> list[str]:
    """The full names of all modules, and of all objects in them, that a file imports."""
    names: list[str] = []
    for node in _imports(file):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        else:
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _imports(file: Path) -> list[ast.Import | ast.ImportFrom]:
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    found = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in found:
        assert not getattr(node, "level", 0), f"{file}: write absolute imports"
    return found


NO_DEPENDENCY = {"cocoseg/params/__init__.py", "cocoseg/params/runtime.py"}
"""Code that stages import but that changes no result."""


def declared_dependency(file: str) -> str | None:
    """The entry in dvc.yaml with which a stage declares an imported file, or None.

    It is the package `cocoseg/NAME`, or the file itself for scripts and sections of parameters.
    """
    first, *rest = file.split("/")
    if file in NO_DEPENDENCY:
        return None
    is_package = first == "cocoseg" and len(rest) > 1 and rest[0] != "params"
    return f"cocoseg/{rest[0]}" if is_package else file


def declared_dependencies(script: Path, root: Path) -> set[str]:
    """The code on which the script of a stage depends, as dvc.yaml declares it."""
    declared = map(declared_dependency, imported_files(script, root))
    return {path for path in declared if path is not None}
