"""Matching of the file names in an annotation file with image files.

    directory = ImageDirectory(Path("data/own/images"))
    directory.find("/label-studio/data/media/upload/4/cb0618f6-cat.jpg")      # "cat.jpg"

Labeling tools drop or prepend directories, prefix names with random digits, or write URLs.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cocoseg.coco.rejections import Reason
from cocoseg.core.errors import UserError


class NoMatch(LookupError):
    """No image file matches a name, or several do.

    Attributes:
        reason: `IMAGE_NOT_FOUND` or `IMAGE_AMBIGUOUS`.
        detail: the name, and the files that match if there are several.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


PathParts = tuple[str, ...]

_Listed = tuple[PathParts, str]
"""A path, and the first path of the same file: links give a directory several."""


class ImageDirectory:
    """The files in a directory and its subdirectories.

    `find` only returns paths from the listing of the directory, so no name in an annotation file
    can escape from it. Links are followed, because DVC may replace tracked files by links.

    Args:
        directory: listed recursively. Paths that UTF-8 cannot encode are skipped, because JSON
            cannot contain them.

    Raises:
        UserError: the directory does not exist.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise UserError(f"{directory} is not a directory; check download.files")
        self.directory = directory
        self._by_name: dict[str, list[_Listed]] = defaultdict(list)
        self._by_lower_extension: dict[str, list[_Listed]] = defaultdict(list)
        for parent, first, names in _walk(directory):
            for name in names:
                parts = Path(parent, name).relative_to(directory).parts
                path = Path(first, name).relative_to(directory).as_posix()
                if _is_utf8("/".join((path, *parts))):
                    self._by_name[_composed(name)].append((parts, path))
                    lower = _with_lower_extension(_composed(name))
                    self._by_lower_extension[lower].append((parts, path))

    def find(self, name: str) -> str:
        """Find the file that a name in an annotation file refers to.

        A path matches if it equals the name, or if one ends with the other, because tools drop
        leading directories or prepend those of their storage. The longest match wins. For a path on
        another machine, the file name alone is enough. If no path matches, one that differs only in
        the case of its extension does.

        Returns:
            The path relative to the directory, with `/` as separator.

        Raises:
            NoMatch: no file matches, or several match equally well.
        """
        interpretations = list(_interpretations(name))
        candidates = [(wanted, self._by_name.get(wanted[-1], ())) for wanted in interpretations]
        for *directories, last in interpretations:
            wanted = (*directories, _with_lower_extension(last))
            candidates.append((wanted, self._by_lower_extension.get(wanted[-1], ())))
        for wanted, listed in candidates:
            matches = [(parts, path) for parts, path in listed if _is_match(parts, wanted)]
            if not matches:
                continue
            longest = max(min(len(parts), len(wanted)) for parts, _ in matches)
            best = [match for match in matches if min(len(match[0]), len(wanted)) == longest]
            exact = [match for match in best if len(match[0]) == len(wanted)]
            paths = list(dict.fromkeys(path for _, path in exact or best))
            if len(paths) > 1:
                shown = ", ".join(paths[:3])
                raise NoMatch(Reason.IMAGE_AMBIGUOUS, f"{name} matches {shown}"[:300])
            return paths[0]
        raise NoMatch(Reason.IMAGE_NOT_FOUND, name[:300])


def plain_path(name: str) -> str:
    """Convert a name to a path relative to a base URL.

    Raises:
        NoMatch: the name is empty, contains `..`, or cannot be encoded as UTF-8.
    """
    parts = _parts(name)
    if not parts or ".." in parts or not _is_utf8(name):
        raise NoMatch(Reason.IMAGE_NOT_FOUND, name[:300])
    return "/".join(parts)


def _is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode the text; it cannot encode an unpaired surrogate."""
    return text.encode(errors="replace").decode() == text


def _composed(name: str) -> str:
    """The name in NFC, because macOS and archives made there decompose accents."""
    return unicodedata.normalize("NFC", name)


def _with_lower_extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return f"{stem}.{extension.lower()}" if dot else name


def _walk(directory: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Each path of a directory below, its first path, and its sorted file names.

    Links are followed after all directories, and only one link to each directory, because links can
    form loops.
    """
    first: dict[str, str] = {}
    followed: set[str] = set()
    starts = [str(directory)]
    for start in starts:
        if (target := os.path.realpath(start)) in followed:
            continue
        followed.add(target)
        for parent, directories, names in os.walk(start):
            directories.sort()
            paths = [Path(parent, name) for name in directories]
            starts += [str(path) for path in paths if path.is_symlink()]
            yield parent, first.setdefault(os.path.realpath(parent), parent), sorted(names)


def _is_match(parts: PathParts, wanted: PathParts) -> bool:
    """Whether the directories of a path match; its name is known to."""
    shorter = min(len(parts), len(wanted))
    return tuple(map(_composed, parts[-shorter:-1])) == wanted[-shorter:-1]


def _after_ups(parts: PathParts) -> int:
    """The index after the last `..`; the parts before it are meaningless elsewhere."""
    return max((index + 1 for index, part in enumerate(parts) if part == ".."), default=0)


def _parts(name: str, separators: str = r"[/\\]") -> PathParts:
    """The parts of a POSIX or Windows path."""
    parts = [part for part in re.split(separators, name) if part not in ("", ".")]
    return tuple(map(_composed, parts))


def _interpretations(name: str) -> Iterator[PathParts]:
    """The paths that a name may mean, most likely first."""
    texts = [name, unquote(name)]
    try:
        url = urlsplit(name)
        # Label Studio's local files are /data/local-files/?d=a%2Fb.jpg; buckets sign URLs in the
        # query.
        texts += [*parse_qs(url.query).get("d", ()), unquote(url.path)]
    except ValueError:  # brackets, or a query with too many fields
        pass
    paths = [_parts(name, "/"), *map(_parts, dict.fromkeys(texts))]
    # Label Studio prefixes the names of uploads with eight hexadecimal digits.
    paths += [
        (*parts[:-1], plain)
        for parts in paths
        if parts and (plain := re.sub(r"^[0-9a-f]{8}(-|__)", "", parts[-1])) not in ("", parts[-1])
    ]
    paths = [parts[_after_ups(parts) :] for parts in paths]
    if re.match(r"[/\\]|\w+:|.*\.\.[/\\]", name):
        # The directories are on another machine: if they do not match, the file name must.
        paths += [parts[-1:] for parts in paths]
    yield from filter(None, dict.fromkeys(paths))
