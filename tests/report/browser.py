"""A page in the system's Chromium, with everything that it said and asked for.

Used by tests as a module beside them::

    browser = load("browser")          # by path, see the tests of the explorer
    with browser.open_page(path, width=390, height=844) as opened:
        opened.page.locator("h1").inner_text()
    assert opened.quiet
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# No sandbox: tests may run as root. The rest keeps the browser from asking the network for itself.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@dataclass
class Opened:
    """A page and what happened in it.

    Attributes:
        page: Playwright's.
        url: Of the file.
        console: Every message, as ``"type: text"``.
        errors: Exceptions that nobody caught.
        requests: Addresses of everything that was asked for, the file itself first.
        failed: Addresses that gave nothing.
    """

    page: Any
    url: str
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions."""
        return [m for m in self.console if m.startswith(("error", "warning"))] + self.errors

    @property
    def outside(self) -> list[str]:
        """Requests for anything but the file and what is inside of it."""
        own = (self.url, "data:", "blob:", "about:")
        return [u for u in self.requests if not (u.split("#")[0] == self.url or u.startswith(own[1:]))]


def chromium() -> str:
    """Path of the browser, or a skip that says what is missing."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path; install chromium")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A running browser, for several pages."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def open_page(
    path: str | Path,
    *,
    width: int = 1400,
    height: int = 900,
    running: Any = None,
    dark: bool = False,
    touch: bool = False,
    javascript: bool = True,
    scale: float = 1.0,
) -> Iterator[Opened]:
    """Open a file and record what it does.

    Args:
        path: HTML file.
        width: Of the window in CSS pixels.
        height: Likewise.
        running: From :func:`browser`; one is started for this page if left out.
        dark: Whether the reader prefers dark colours.
        touch: Whether the screen takes fingers, as a phone does.
        javascript: Whether scripts run.
        scale: Device pixels per CSS pixel.
    """
    with contextlib.ExitStack() as stack:
        running = running or stack.enter_context(browser())
        context = running.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            is_mobile=touch,
            java_script_enabled=javascript,
            device_scale_factor=scale,
        )
        stack.callback(context.close)
        page = context.new_page()
        opened = Opened(page, Path(path).resolve().as_uri())
        page.on("console", lambda m: opened.console.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: opened.errors.append(str(e)))
        page.on("request", lambda r: opened.requests.append(r.url))
        page.on("requestfailed", lambda r: opened.failed.append(r.url))
        page.goto(opened.url, wait_until="load")
        yield opened
