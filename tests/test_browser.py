"""Finding and getting a browser, with stand-ins for the machine; the pages in it are tests of their own."""

import subprocess
import sys

import browser
import pytest
from playwright.sync_api import Error

PLAYWRIGHT = (sys.executable, "-m", "playwright", "install", "chromium")
UPDATE, INSTALL = ("apt-get", "update"), ("apt-get", "install", "-y", "--no-install-recommends", "chromium")


class Machine:
    """A made-up machine: programs on its PATH, what commands bring to it, which of them fail."""

    def __init__(self):
        self.programs, self.own, self.brings, self.fails, self.broken, self.ran = {"apt-get"}, None, {}, {}, set(), []

    def which(self, name):
        return f"/bin/{name}" if name in self.programs else None

    def run(self, command, check, **_):
        assert check
        self.ran.append(tuple(command))
        if tuple(command) in self.fails:
            raise subprocess.CalledProcessError(1, command, stderr=self.fails[tuple(command)])
        self.programs |= self.brings.get(tuple(command), set())

    def start(self, executable):
        if executable in self.broken:
            raise Error("libnss3.so: cannot open shared object file\nlog")


@pytest.fixture
def machine(monkeypatch):
    made_up = Machine()
    monkeypatch.delenv("RSBOOK_CHROMIUM", raising=False)
    monkeypatch.setattr(browser.shutil, "which", made_up.which)
    monkeypatch.setattr(browser.subprocess, "run", made_up.run)
    monkeypatch.setattr(browser.os, "geteuid", lambda: 0)
    monkeypatch.setattr(browser, "_start", made_up.start)
    monkeypatch.setattr(browser, "_playwrights_own", lambda: made_up.own)
    return made_up


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"])
def test_a_browser_on_the_path_is_found(machine, name):
    machine.programs.add(name)
    assert browser.find() == f"/bin/{name}"
    assert browser.install() == f"/bin/{name}"
    assert machine.ran == []


def test_the_variable_goes_first(machine, monkeypatch):
    machine.programs |= {"chromium", "my-chrome"}
    monkeypatch.setenv("RSBOOK_CHROMIUM", "my-chrome")
    assert browser.find() == "/bin/my-chrome"


def test_a_wrong_variable_is_told(machine, monkeypatch):
    machine.programs.add("chromium")
    monkeypatch.setenv("RSBOOK_CHROMIUM", "/no/where")
    for get in (browser.find, browser.install):
        with pytest.raises(browser.BrowserError, match=r"RSBOOK_CHROMIUM=/no/where is not a program; install Chromium"):
            get()


def test_playwrights_own_comes_last(machine):
    machine.own = "/home/x/chrome"
    assert browser.find() == "/home/x/chrome"
    machine.programs.add("chrome")
    assert browser.find() == "/bin/chrome"


def test_playwright_gets_one(machine):
    machine.brings[PLAYWRIGHT] = {"chromium"}
    assert browser.install() == "/bin/chromium"
    assert machine.ran == [PLAYWRIGHT]


def test_root_gets_one_from_the_distribution_where_playwright_cannot(machine):
    machine.fails[PLAYWRIGHT] = "Downloading\nError: getaddrinfo ENOTFOUND"
    machine.brings[INSTALL] = {"chromium"}
    assert browser.install() == "/bin/chromium"
    assert machine.ran == [PLAYWRIGHT, UPDATE, INSTALL]


def test_a_browser_that_does_not_start_is_not_taken(machine):
    machine.own, machine.broken = "/home/x/chrome", {"/home/x/chrome"}
    machine.brings[INSTALL] = {"chromium"}
    assert browser.install() == "/bin/chromium"


@pytest.mark.parametrize("user", [0, 1000])
def test_what_was_tried_is_told_with_the_cure(machine, monkeypatch, user):
    monkeypatch.setattr(browser.os, "geteuid", lambda: user)
    machine.fails = {PLAYWRIGHT: "Downloading\nError: getaddrinfo ENOTFOUND\nat x", UPDATE: "E: no network"}
    with pytest.raises(browser.BrowserError) as error:
        browser.install()
    told = str(error.value).splitlines()
    assert "RSBOOK_CHROMIUM=/path/to/chromium; then: make -B .venv/browser" in told[0]
    assert told[1].endswith("playwright install chromium: Error: getaddrinfo ENOTFOUND")
    assert told[2:] == (["  apt-get update: E: no network"] if user == 0 else [])
    monkeypatch.setattr(browser, "_running", [])  # whatever runs for other tests
    with pytest.raises(browser.BrowserError, match="make -B"), browser.launch():
        pass


def test_only_this_machine_and_files_are_reached():
    assert not any(map(browser._leaves, ("file:///a.html", "http://127.0.0.1:8000/a", "data:,a", "blob:null/1")))
    assert all(map(browser._leaves, ("https://cdn.example/a.js", "http://127.0.0.1.example/", "http://localhost:1/")))


def test_a_page_tells_what_goes_wrong(tmp_path):
    (tmp_path / "a.html").write_text(
        "<img src='https://img.example/a.png'><script src='lost.js'></script><script>x()</script>"
    )
    with browser.launch() as running, browser.launch() as again:
        assert again is running
        with browser.offline_page(running, viewport={"width": 390, "height": 844}) as (page, problems):
            page.goto((tmp_path / "a.html").as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("innerWidth") == 390
    for part in ("request failed: https://img.example", "lost.js", "console error", "uncaught exception: x is not"):
        assert any(part in problem for problem in problems), problems
