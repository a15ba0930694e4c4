"""Draw docs/page.png and docs/page-phone.png: the page of `maskless serve`, in Chromium, with the bundled models.

python docs/make_screenshots.py
"""

from __future__ import annotations

import io
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from maskless import Editor
from maskless.interfaces.jobs.worker import Jobs
from maskless.interfaces.web.options import ServeOptions
from maskless.interfaces.web.server import build_app

HERE = Path(__file__).parent
PATIENCE_MS = 600_000


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("docs/make_screenshots.py needs chromium on PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        jobs = Jobs(Editor.from_pretrained("storybook"), folder)
        app = build_app(jobs, ServeOptions())
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.05)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        address = f"http://127.0.0.1:{port}"
        wide = _picture(browser, address, (1280, 900), "light", "room", ("replace the blue cake with a green tree",))
        tall = _picture(browser, address, (390, 844), "dark", "desert", ("replace the red car with a blue house",))
        for name, picture in (("page.png", wide), ("page-phone.png", tall)):
            Image.open(io.BytesIO(picture)).convert("RGB").quantize(256).save(HERE / name, optimize=True)
        browser.close()
        server.should_exit = True
        jobs.stop()


def _picture(
    browser: Browser, address: str, size: tuple[int, int], scheme: str, sample: str, instructions: tuple[str, ...]
) -> bytes:
    """The page after these edits of a sample."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.locator(f'[aria-label="Open the sample {sample}"]').click()
    page.locator(".ms-view img").wait_for()
    for number, instruction in enumerate(instructions, start=2):
        page.get_by_label("What to change").fill(instruction)
        page.locator("#ms-edit").click()
        page.locator(f"li:nth-child({number}) .ms-version").wait_for()
    page.mouse.move(2, 2)
    time.sleep(2)  # the page is never idle: Gradio keeps a connection open
    return page.screenshot(full_page=True)


if __name__ == "__main__":
    main()
