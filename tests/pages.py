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

ACCESSIBILITY = r"""
<script>
const channels = text => text.match(/[\d.]+/g).map(Number).concat(1).slice(0, 4);
const over = ([r, g, b, alpha], below) =>
  [r, g, b].map((value, i) => alpha * value + (1 - alpha) * below[i]);
const background = e => over(channels(getComputedStyle(e).backgroundColor),
  e.parentElement ? background(e.parentElement) : [255, 255, 255]);
const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const luminance = color => color.map(v => linear(v / 255)).reduce(
  (sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = e => {
  const behind = background(e);
  const [low, high] = [over(channels(getComputedStyle(e).color), behind), behind]
    .map(luminance).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const html = e => e.outerHTML.slice(0, 200);
const found = (selector, condition) => [...document.querySelectorAll(selector)].filter(condition);
const texts = found('body :not(script, .unseen)',
  e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()));
const scrolled = found('*',
  e => getComputedStyle(e).overflowX === 'auto' && e.scrollWidth > e.clientWidth);
const labels = found('[role=region]', () => true).map(e => e.ariaLabel);
document.title = JSON.stringify({
  dark: luminance(background(document.body)) < 0.1,
  faint: texts.filter(e => contrast(e) < 4.5).map(html),
  matrix: texts.filter(e => e.closest('.heat td')).length,
  scrolled: scrolled.length,
  unreachable: scrolled.filter(e => e.tabIndex !== 0 || e.role !== 'region' || !e.ariaLabel)
    .map(html),
  repeated: labels.filter((label, i) => labels.indexOf(label) !== i),
});
</script>
"""
"""Reports text with a contrast (WCAG 2) below 4.5, and wide regions that the keyboard cannot reach.

Regions must have different labels.
"""

PRINTED = r"""
<style>h2::after, h3::after { display: none !important; } /* an invisible reserve */</style>
<script>
const html = e => e.outerHTML.slice(0, 200);
const found = selector => [...document.querySelectorAll(selector)].filter(e => e.offsetWidth);
const box = e => e.getBoundingClientRect();
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
const lines = (node, start, end) => {
  const range = document.createRange();
  range.setStart(node, start);
  range.setEnd(node, end);
  return new Set([...range.getClientRects()].map(r => r.top)).size;
};
const words = found('h3, h4, p, figcaption, th').flatMap(e => [...e.childNodes])
  .filter(node => node.nodeType === Node.TEXT_NODE)
  .flatMap(node => [...node.data.matchAll(/\w+/g)].map(
    ({0: word, index}) => ({word, lines: lines(node, index, index + word.length)})));
const blocks = found('table, figure, p, h2, h3, dl');
document.title = JSON.stringify({
  words: words.length,
  broken: words.filter(w => w.lines > 1 && w.word.length < 15).map(w => w.word),
  overlapping: blocks.flatMap((a, i) => blocks.slice(i + 1)
    .filter(b => !a.contains(b) && overlap(box(a), box(b)))
    .map(b => [html(a), html(b)])),
  outside: blocks.filter(e => box(e).right > innerWidth + 1).map(html),
  last: found('h2, h3').filter(e => getComputedStyle(e).breakAfter !== 'avoid').length,
});
</script>
"""
"""Reports overlapping blocks, blocks outside the paper, and words that are broken across lines.

`last` is the number of headings that can be the last line of a page.
"""


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


def ask_in_browser(
    file: Path, page: str, script: str, width: int, *, dark: bool = False
) -> tuple[Any, str]:
    """Run a script at the end of a page, which sets the title to JSON.

    Args:
        file: where the page is written, with the script.
        page: the page.
        script: an HTML element.
        width: the width of the window in pixels.
        dark: whether the user prefers a dark color scheme.

    Returns:
        The parsed title, and the log of the browser.
    """
    # The policy of the page forbids scripts.
    allowed = page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    file.write_text(allowed.replace("</body>", script + "</body>"), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    result = run_browser(file, f"--window-size={width},900", scheme, "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", result.stdout)
    assert title
    return json.loads(html.unescape(title[1])), result.stderr


def check_accessibility(file: Path, page: str, width: int, *, dark: bool) -> dict[str, Any]:
    """Assert that all text has enough contrast and that the keyboard reaches all regions."""
    found: dict[str, Any]
    found, _ = ask_in_browser(file, page, ACCESSIBILITY, width, dark=dark)
    assert found["dark"] == dark
    assert (found["faint"], found["unreachable"], found["repeated"]) == ([], [], [])
    return found


def check_print(file: Path, page: str) -> None:
    """Assert that the page fits on A4 with margins of 14 mm, and that words stay whole."""
    printed = page.replace("@media print", "@media all")
    assert printed != page
    found, _ = ask_in_browser(file, printed, PRINTED, width=688)
    assert found["words"] > 20
    assert (found["overlapping"], found["outside"], found["broken"]) == ([], [], [])
    assert found["last"] == 0


def check_links(page: str, count: int) -> None:
    """Assert that each link of the contents has its section, and that nothing is external."""
    targets = re.findall(r'href="#([\w-]+)"', page)
    assert len(targets) == count
    assert all(page.count(f'id="{target}"') == 1 for target in targets)
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "url(" not in page and "@import" not in page and "<script" not in page
