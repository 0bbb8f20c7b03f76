"""Reading HTML pages: their text, headings and images, and the pages in a real browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

MEASURE = """
<script>
document.title = JSON.stringify({
  images: [...document.querySelectorAll('img')].map(i => i.naturalWidth),
  requests: performance.getEntriesByType('resource').map(e => e.name)
    .filter(name => !name.startsWith('data:')),
  excess: document.documentElement.scrollWidth - document.documentElement.clientWidth,
});
</script>
"""
"""Reports the width of each image, network requests, and by how much the page is too wide."""


class Text(HTMLParser):
    """The text of a page without its styles, with words separated by single spaces."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.feed(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def __str__(self) -> str:
        return " ".join(" ".join(self.parts).split())


class Outline(HTMLParser):
    """The levels of the headings of a page, the attributes of its images, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(dict(attrs))


def run_browser(page: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Open a file in headless Chromium without network access."""
    assert CHROMIUM
    profile = page.with_name(f"{page.stem}_profile")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --enable-logging=stderr"
    )
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def ask_in_browser(file: Path, page: str, script: str, width: int) -> tuple[Any, str]:
    """Run a script at the end of a page, which sets the title to JSON.

    Returns:
        The parsed title, and the log of the browser.
    """
    # The policy of the page forbids scripts.
    allowed = page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    file.write_text(allowed.replace("</body>", script + "</body>"), encoding="utf-8")
    result = run_browser(file, f"--window-size={width},900", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", result.stdout)
    assert title
    return json.loads(html.unescape(title[1])), result.stderr


def check_links(page: str, count: int) -> None:
    """Assert that each link of the contents has its section, and that nothing is external."""
    targets = re.findall(r'href="#([\w-]+)"', page)
    assert len(targets) == count
    assert all(page.count(f'id="{target}"') == 1 for target in targets)
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "url(" not in page and "@import" not in page and "<script" not in page
