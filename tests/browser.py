"""A Chromium for tests: find one, get one where there is none, open pages in it without a network.

`python tests/browser.py` prints where it is. As a fixture, for all tests of a file:

    @pytest.fixture(scope="module")
    def chromium():
        with browser.launch() as running:
            yield running
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# No sandbox: root in a container has none. The resolver rule also stops what page.route never sees (web sockets,
# workers, the browser's own errands).
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
CURE = "install Chromium or Chrome, or name one with RSBOOK_CHROMIUM=/path/to/chromium; then: make -B .venv/browser"


class BrowserError(RuntimeError):
    """There is no browser; the message says what to do."""


def find():
    """The executable of a Chromium or Chrome, or None; RSBOOK_CHROMIUM goes first.

    Raises BrowserError when RSBOOK_CHROMIUM names none.
    """
    if named := os.environ.get("RSBOOK_CHROMIUM"):
        if not shutil.which(named):
            raise BrowserError(f"RSBOOK_CHROMIUM={named} is not a program; {CURE}")
        return shutil.which(named)
    return next(filter(None, map(shutil.which, NAMES)), None) or _playwrights_own()


def install():
    """Find a browser that starts, or get one (Playwright's; as root on Debian or Ubuntu, theirs), and return it.

    Raises BrowserError with what was tried when there is none in the end.
    """
    said = []
    for commands in [[], *_ways()]:
        try:
            for command in commands:
                subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace")
            if found := find():
                _start(found)
                return found
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout or "").strip().splitlines()
            why = next((line for line in lines if line.startswith(("Error", "E:"))), "".join(lines[-1:]))
            said.append(f"  {' '.join(map(str, error.cmd))}: {why}")
        except Error as error:  # Playwright's own Chromium without the system's libraries
            said.append(f"  {found} does not start: {error.message.strip().splitlines()[0]}")
    raise BrowserError("\n".join([f"there is no browser for the tests: {CURE}", *said]))


def _ways():
    """Lists of commands that may get a browser."""
    yield [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        yield [
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", "chromium"],
        ]


def _playwrights_own():
    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return str(path) if path.is_file() else None


def _start(executable):
    with sync_playwright() as playwright:
        playwright.chromium.launch(executable_path=executable, args=FLAGS).close()


_running = []


@contextlib.contextmanager
def launch():
    """A running browser of Playwright; inside another launch, that one, since Playwright runs once in a thread.

    Raises BrowserError when there is none.
    """
    if _running:
        yield _running[0]
        return
    executable = find()
    if executable is None:
        raise BrowserError(f"there is no browser for the tests: {CURE}")
    with sync_playwright() as playwright:
        _running.append(playwright.chromium.launch(executable_path=executable, args=FLAGS))
        try:
            yield _running[0]
        finally:
            _running.pop().close()


@contextlib.contextmanager
def offline_page(running, **options):
    """A new page that reaches files and 127.0.0.1 only, and the list of what went wrong on it so far.

    options: those of `browser.new_context` (viewport, color_scheme, java_script_enabled, …). The list grows by a line
    for each failed or refused request, HTTP error, console error and uncaught exception.
    """
    problems = []
    context = running.new_context(service_workers="block", **options)
    try:
        page = context.new_page()
        page.on("requestfailed", lambda request: problems.append(f"request failed: {request.url} ({request.failure})"))
        page.on("response", lambda answer: answer.ok or problems.append(f"HTTP {answer.status}: {answer.url}"))
        page.on("console", lambda said: said.type == "error" and problems.append(f"console error: {said.text}"))
        page.on("pageerror", lambda error: problems.append(f"uncaught exception: {error}"))
        context.route(_leaves, lambda route: route.abort())
        yield page, problems
    finally:
        context.close()


def _leaves(url):
    return url.startswith(("http:", "https:")) and not url.startswith(("http://127.0.0.1:", "http://127.0.0.1/"))


if __name__ == "__main__":
    try:
        print(install())
    except BrowserError as problem:
        sys.exit(f"rsbook: {problem}")
