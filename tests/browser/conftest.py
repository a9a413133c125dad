"""A headless Chromium of the system, driven by selenium; without either the tests are skipped, and say why."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; tox -e browser brings it")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with its chromedriver on this system to open the page with")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    made.set_script_timeout(60)
    yield made
    made.quit()


@pytest.fixture
def opened(browser: Any) -> Callable[[Path], Any]:
    """Opens a file and waits until its data are there."""

    def open_(path: Path) -> Any:
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)  # read, so emptied
        browser.get(path.as_uri())
        wait_for(browser, "return document.documentElement.dataset.ready")
        return browser

    return open_


def wait_for(browser: Any, script: str, seconds: float = 60.0) -> Any:
    """Run a script until it returns something true."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(script)):
        assert time.monotonic() < end, f"still false after {seconds} s: {script}"
        time.sleep(0.05)
    return value
