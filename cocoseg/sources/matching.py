"""Which file of a folder an annotation file means, whatever a labelling tool wrote as its name.

photos = PhotoFolder(Path("data/own/images"))
photos.find("/label-studio/data/media/upload/4/cb0618f6-cat.jpg")      # "cat.jpg"
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
    """No photo, or more than one, may be meant; `reason` is a key of `metrics/filter.json`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


Parts = tuple[str, ...]


class ImageDirectory:
    """The files in a folder and in the folders below it, by their names.

    Only names that were found by listing the folder are ever returned: no name in an annotation
    file leads out of it. Links to files are followed, since DVC may link what it tracks. Raises
    UserError where there is no such folder.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise UserError(f"{directory} is no folder: see download.files")
        self.directory = directory
        self._by_name: dict[str, list[Parts]] = defaultdict(list)
        for parent, directories, names in os.walk(directory):
            directories.sort()
            for name in sorted(names):
                parts = Path(parent, name).relative_to(directory).parts
                if _is_utf8("/".join(parts)):  # else no JSON can spell it
                    self._by_name[_composed(name)].append(parts)

    def find(self, name: str) -> str:
        """The path below the folder, with `/`, of the photo that `name` means.

        The name and the path must be equal, or one the end of the other (a tool has left folders
        out, or has put its own storage before them); the longest agreement wins. Of a path on
        another machine the last part is enough. Raises NoPhoto when no photo agrees, or several do.
        """
        for wanted in _readings(name):
            fitting = [
                parts for parts in self._by_name.get(wanted[-1], ()) if _agree(parts, wanted)
            ]
            if not fitting:
                continue
            longest = max(min(len(parts), len(wanted)) for parts in fitting)
            best = [parts for parts in fitting if min(len(parts), len(wanted)) == longest]
            exact = [parts for parts in best if len(parts) == len(wanted)]
            if len(exact or best) > 1:
                shown = ", ".join("/".join(parts) for parts in best[:3])
                raise NoMatch(Reason.IMAGE_AMBIGUOUS, f"{name} may be any of {shown}"[:300])
            return "/".join((exact or best)[0])
        raise NoMatch(Reason.IMAGE_NOT_FOUND, name[:300])


def plain_path(name: str) -> str:
    """A name as the path below an address, without what would lead out of it. Raises NoPhoto."""
    parts = _parts(name)
    if not parts or ".." in parts or not _is_utf8(name):
        raise NoMatch(Reason.IMAGE_NOT_FOUND, name[:300])
    return "/".join(parts)


def _is_utf8(text: str) -> bool:
    """Whether UTF-8 can spell it, as it cannot half a surrogate pair."""
    return text.encode(errors="replace").decode() == text


def _composed(name: str) -> str:
    """One spelling of accents: macOS and archives made there take another than most tools."""
    return unicodedata.normalize("NFC", name)


def _agree(parts: Parts, wanted: Parts) -> bool:
    shorter = min(len(parts), len(wanted))
    return tuple(map(_composed, parts[-shorter:])) == wanted[-shorter:]


def _after_ups(parts: Parts) -> int:
    """The place after the last `..`: what comes before tells nothing."""
    return max((place + 1 for place, part in enumerate(parts) if part == ".."), default=0)


def _parts(name: str, separators: str = r"[/\\]") -> Parts:
    """The parts of a path, of Windows as well."""
    parts = [part for part in re.split(separators, name) if part not in ("", ".")]
    return tuple(map(_composed, parts))


def _readings(name: str) -> Iterator[Parts]:
    """The paths that a name may stand for, the likeliest first."""
    texts = [name, unquote(name)]
    try:
        address = urlsplit(name)
        # Label Studio's local files are /data/local-files/?d=a%2Fb.jpg, and buckets sign addresses.
        texts += [*parse_qs(address.query).get("d", ()), unquote(address.path)]
    except ValueError:  # it has brackets, or a query beyond all measure
        pass
    readings = [_parts(name, "/"), *map(_parts, dict.fromkeys(texts))]
    # Label Studio puts eight digits before the name of what is uploaded to it.
    readings += [
        (*parts[:-1], plain)
        for parts in readings
        if parts and (plain := re.sub(r"^[0-9a-f]{8}-", "", parts[-1])) not in ("", parts[-1])
    ]
    after_ups = [parts[_after_ups(parts) :] for parts in readings]
    if re.match(r"[/\\]|\w+:|.*\.\.[/\\]", name):
        # Folders on another machine: where they tell nothing, the last part has to do.
        after_ups += [parts[-1:] for parts in after_ups]
    yield from filter(None, dict.fromkeys(after_ups))
