"""A server from the built binary, and a page of it in Debian's chromium."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(url, process, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=2).read()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    pytest.fail("the server was not ready in time")


@pytest.fixture(scope="session")
def url():
    if os.environ.get("JOINTLY_URL"):
        yield os.environ["JOINTLY_URL"].rstrip("/")
        return
    binary = os.environ.get("JOINTLY_BIN", str(ROOT / "target/debug/jointly"))
    port = free_port()
    process = subprocess.Popen([binary, "serve", "--listen", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def browser():
    path = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    assert path, "no chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, url):
    """Opens the page; what the console says, and what breaks the page's policy, fails the test at its end."""
    contexts, complaints = [], []

    def make(width=1280, height=800, theme="light", answer=None, models=None):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        # A refused request is told of in the console by the browser itself.
        page.on("console", lambda m: m.type in ("error", "warning") and "Failed to load" not in m.text and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if models is not None:
            page.route("**/v1/models", lambda route: route.fulfill(json=models))
        if answer is not None:
            status, headers, body = answer
            page.route(
                "**/v1/rerank",
                lambda route: route.fulfill(
                    status=status,
                    headers={"content-type": "application/json", **headers},
                    body=body if isinstance(body, str) else json.dumps(body),
                ),
            )
        page.goto(url + "/", wait_until="networkidle")
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
