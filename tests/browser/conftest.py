"""A headless Chromium for the tests of pages: Debian's chromium and chromium-driver, driven by selenium.

Where one of them is missing the tests are skipped and say so; with ``PYLRP_REQUIRE_BROWSER=1`` they fail instead.
"""

import importlib.util
import json
import os
import shutil

import pytest

WIDTH, HEIGHT = 1200, 900


class Browser:
    """A page opened from disk, and what people do with it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width=WIDTH, dark=False):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        self.driver.get_log("browser"), self.driver.get_log("performance")  # those of the page before
        self.driver.get(path.as_uri())
        self.drawn(0)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def drawn(self, before):
        """Wait until the page has drawn more often than ``before``; return how often."""
        return self.driver.execute_async_script(
            "const [before, done] = arguments, look = () => {"
            "  const n = Number(document.documentElement.dataset.drawn || 0);"
            "  if (n > before) done(n); else setTimeout(look, 10); };"
            "look();",
            before,
        )

    def act(self, script, *arguments):
        """Do something that makes the page draw, and wait for that."""
        before = int(self.run("return document.documentElement.dataset.drawn"))
        self.run(script, *arguments)
        self.drawn(before)

    def slide(self, name, value):
        self.act(
            "const input = document.getElementById(arguments[0]); input.value = arguments[1];"
            "input.dispatchEvent(new Event('input'))",
            name,
            value,
        )

    def choose(self, index):
        if not self.run("return document.querySelectorAll('[name=target]')[arguments[0]].checked", index):
            self.act("document.querySelectorAll('[name=target]')[arguments[0]].click()", index)

    def compose(self, index):
        self.act(
            "const s = document.getElementById('composite'); s.selectedIndex = arguments[0];"
            "s.dispatchEvent(new Event('change'))",
            index,
        )

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def pixels(self, selector):
        """Return a canvas as (height, width, 4) numbers, flat, and its size."""
        return self.run(
            "const c = document.querySelector(arguments[0]);"
            "return [c.height, c.width, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]",
            selector,
        )

    def picture(self, selector):
        """Return a canvas as a data URI: enough to see whether it has changed."""
        return self.run("return document.querySelector(arguments[0]).toDataURL()", selector)

    def requests(self):
        """Return the addresses that were asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def missing():
    """Return what is needed and not here."""
    packages = [] if importlib.util.find_spec("selenium") else ["selenium (pip)"]
    return packages + [f"{name} (apt)" for name in ("chromium", "chromedriver") if not shutil.which(name)]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if lacking := missing():
        message = f"the browser tests need {', '.join(lacking)}"
        if os.environ.get("PYLRP_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    profile = tmp_path_factory.mktemp("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(15)
    yield Browser(driver)
    driver.quit()
