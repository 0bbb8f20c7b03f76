"""Which of the project's own files a module imports, found by parsing."""

import ast
from pathlib import Path

CODE_SUFFIXES = (".py", ".c")


def imported_files(script: Path, root: Path) -> set[str]:
    """`script` and every module of the project that it imports, directly or not, in Python or in C.

    Paths are relative to `root`, with forward slashes. A package's `__init__.py` counts only where
    its content is imported by name.
    """
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            if file.suffix == ".py":
                waiting += _direct_imports(file, root)
    return {file.relative_to(root).as_posix() for file in found}


def _direct_imports(file: Path, root: Path) -> list[Path]:
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: write imports in full"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    paths = [root / Path(*name.split(".")) for name in names]
    files = [path.with_suffix(suffix) for path in paths for suffix in CODE_SUFFIXES]
    return [file for file in files if file.is_file()]
