"""The page in Debian's Chromium: what a visitor does, and that no pixel or request goes astray."""

import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from maskless.data.picture import load_image
from maskless.data.sixteen_bit import encode_png
from maskless.engine.editor import Editor
from maskless.interfaces.jobs.worker import JobLimits, Jobs
from maskless.interfaces.web.options import ServeOptions
from served import Running, png

pytestmark = pytest.mark.slow
WORDS = "replace the red square with a blue house"
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def server(editor: Editor, tmp_path_factory) -> Iterator[Running]:
    """The whole server, with small models and quick options."""
    quick = Editor(editor.models, replace(editor.config, search="learned", iterations=3, anchors=3, steps=1, views=1))
    running = Running(
        Jobs(quick, tmp_path_factory.mktemp("served") / "edits", JobLimits()), ServeOptions(), with_page=True
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome") or playwright.chromium.executable_path
        if not Path(path).exists():
            warnings.warn("NO BROWSER: the page was not tested, because there is no chromium", stacklevel=1)
            pytest.skip("NO BROWSER: install chromium to test the page")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Visit:
    """A page, with every request that it made and every error that it met."""

    def __init__(self, browser: Browser, url: str, **options) -> None:
        self.page: Page = browser.new_page(accept_downloads=True, **options)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.goto(url)
        expect(self.page.locator("#ms-edit")).to_be_enabled()

    def open(self, content: bytes, name: str = "scene.png") -> None:
        file = {"name": name, "mimeType": "image/png", "buffer": content}
        self.page.locator(".ms-file").set_input_files(file)
        self.page.locator(".ms-view img").wait_for()

    def edit(self, words: str = WORDS) -> None:
        before = self.page.locator(".ms-version").count()
        self.page.get_by_label("What to change").fill(words)
        self.page.locator("#ms-edit").click()
        expect(self.page.locator(".ms-version")).to_have_count(max(before, 1) + 1)

    def download(self, part: str = "image") -> Path:
        with self.page.expect_download() as waiting:
            self.page.locator(f".ms-link[data-name={part}]").click()
        return Path(waiting.value.path())

    def region(self) -> tuple[int, int, int, int]:
        self.page.get_by_text("Correct the region", exact=True).click()
        fields = self.page.locator(".ms-number")
        x0, y0, x1, y1 = (int(fields.nth(index).input_value()) for index in range(4))
        return x0, y0, x1, y1


@pytest.fixture
def visit(browser: Browser, server: Running) -> Iterator[Visit]:
    visit = Visit(browser, server.url, viewport={"width": 1280, "height": 900})
    yield visit
    assert [url for url in visit.requests if not url.startswith((server.url, "data:", "blob:"))] == []
    assert visit.errors == []
    visit.page.close()


def noise(channels: int, deep: bool) -> bytes:
    """A PNG of 120 x 72 pixels of noise; a lossy copy, or one with fewer bits or without alpha, differs everywhere."""
    kind = np.uint16 if deep else np.uint8
    values = np.random.default_rng(5).integers(0, np.iinfo(kind).max, (72, 120, channels), dtype=kind)
    return encode_png(values, icc_profile=None, exif=None, text={}) if deep else png(values)


@pytest.mark.parametrize(("channels", "deep"), [(4, False), (3, True), (4, True)])
def test_the_download_is_the_upload_outside_the_region(visit, tmp_path, channels, deep):
    content = noise(channels, deep)
    (tmp_path / "sent.png").write_bytes(content)
    visit.open(content)
    visit.edit()
    before, after = load_image(tmp_path / "sent.png"), load_image(visit.download())
    assert after.bit_depth == (16 if deep else 8) and (after.alpha is None) == (channels == 3)
    x0, y0, x1, y1 = visit.region()
    outside = np.ones((72, 120), bool)
    outside[y0:y1, x0:x1] = False
    assert before.pixels[outside].tobytes() == after.pixels[outside].tobytes()
    assert (before.pixels[~outside] != after.pixels[~outside]).any()
    if channels == 4:
        assert before.alpha is not None and (before.alpha[outside] == after.alpha[outside]).all()


def test_a_visitor_edits_chooses_corrects_undoes_and_downloads(visit, noisy_png):
    page = visit.page
    visit.open(noisy_png)
    page.get_by_label("What to change").fill(WORDS)
    page.locator("#ms-edit").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("#ms-cancel")).to_be_visible()
    page.locator(".ms-card").first.wait_for()
    expect(page.locator(".ms-card")).to_have_count(3)
    assert "Ranked 1st of 3" in page.locator(".ms-reason").inner_text()
    first = visit.download().read_bytes()
    page.locator(".ms-card").nth(1).click()
    expect(page.locator(".ms-card").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".ms-card").nth(1)).to_be_focused()
    expect(page.locator(".ms-reason")).to_contain_text("Ranked 2nd of 3")
    second = visit.download().read_bytes()
    assert second != first and b"maskless" in second  # the settings are in it

    # Correct the region by dragging a box, and edit again there.
    visit.region()
    area = page.locator(".ms-view").bounding_box()
    assert area is not None
    at = [(area["x"] + area["width"] * x, area["y"] + area["height"] * y) for x, y in ((0.25, 0.25), (0.75, 0.75))]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()
    assert visit.region() == pytest.approx((30, 18, 90, 54), abs=1)
    page.get_by_role("button", name="Edit here").click()
    expect(page.locator(".ms-version")).to_have_count(3)
    assert visit.region() == pytest.approx((30, 18, 90, 54), abs=1)

    # Paint a region with the brush.
    page.get_by_text("Brush", exact=True).click()
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=6)
    page.mouse.up()
    page.get_by_role("button", name="Edit here").click()
    expect(page.locator(".ms-version")).to_have_count(4)
    expect(page.locator("#ms-redo")).to_be_disabled()

    for position in (2, 1, 0):
        page.locator("#ms-undo").click()
        expect(page.locator(".ms-version").nth(position)).to_have_attribute("aria-current", "true")
    expect(page.locator(".ms-version").first).to_have_attribute("aria-current", "true")
    expect(page.locator("#ms-undo")).to_be_disabled()
    page.locator("#ms-redo").click()
    expect(page.locator(".ms-version").nth(1)).to_have_attribute("aria-current", "true")
    assert visit.download().read_bytes() == second
    assert visit.download("zip").read_bytes().startswith(b"PK")
    assert b"<!doctype html>" in visit.download("report").read_bytes()


def test_edits_are_chained_and_a_running_one_is_cancelled(visit, server, noisy_png):
    page = visit.page
    visit.open(noisy_png)
    visit.edit()
    first = visit.download().read_bytes()
    visit.edit("add a green tree")
    expect(page.locator(".ms-version")).to_have_count(3)
    job = server.jobs.get(re.findall(r"/v1/edits/([\w-]+)/", page.locator(".ms-after img").get_attribute("src"))[0])
    assert job.image.read_bytes() == first  # the second edit was made of the first one's picture, as it was written
    page.get_by_text("Advanced options").click()
    page.get_by_role("button", name="Search").click()
    page.get_by_label("Iterations").fill("200")
    page.get_by_label("Epochs").fill("20")
    page.locator("#ms-edit").click()
    page.locator(".ms-tried img").first.wait_for()
    page.locator("#ms-cancel").click()
    expect(page.locator(".ms-note")).to_contain_text("Cancelled")
    expect(page.locator(".ms-version")).to_have_count(3)
    page.get_by_label("Iterations").fill("-1")
    page.locator("#ms-edit").click()
    expect(page.get_by_role("alert")).to_contain_text("terations must be from 0 to 10000")


def test_a_visitor_who_leaves_frees_the_place_of_the_edit(browser, server, noisy_png):
    visit = Visit(browser, server.url)
    visit.open(noisy_png)
    visit.page.get_by_text("Advanced options").click()
    visit.page.get_by_role("button", name="Search").click()
    visit.page.get_by_label("Iterations").fill("200")
    visit.page.get_by_label("Epochs").fill("20")
    visit.page.get_by_label("What to change").fill(WORDS)
    visit.page.locator("#ms-edit").click()
    visit.page.locator(".ms-tried img").first.wait_for()
    visit.page.close()
    for _ in range(400):
        if not server.jobs.is_running:
            return
        time.sleep(0.05)
    raise AssertionError("the edit went on without its visitor")


def test_the_keyboard_alone_is_enough(visit, noisy_png):
    page = visit.page
    page.locator("[data-event=sample]").first.focus()
    page.keyboard.press("Enter")
    page.locator(".ms-view img").wait_for()
    field = page.get_by_label("What to change")
    expect(field).not_to_have_value("")
    for _ in range(30):
        page.keyboard.press("Tab")
        if field.evaluate("field => field === document.activeElement"):
            break
    else:
        raise AssertionError("the Tab key does not reach the words")
    page.keyboard.press("Enter")
    page.locator(".ms-card").first.wait_for()
    page.locator("input[value=compare]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".ms-here")).to_be_visible()
    page.locator(".ms-number").first.focus()
    page.keyboard.press("ArrowUp")
    page.locator(".ms-here").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".ms-version")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_axe_find_no_fault(browser, server, noisy_png, scheme):
    from axe_playwright_python.sync_playwright import Axe

    visit = Visit(browser, server.url, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = visit.page
    serious = list[str]()

    def check() -> None:
        # A button that has just been enabled still fades in, and its contrast is too low until then.
        page.add_style_tag(content="*, *::before, *::after { transition: none !important }")
        found = Axe().run(page).response["violations"]
        serious.extend(
            f"{each['id']}: {each['nodes'][0]['html'][:200]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

    check()
    visit.open(noisy_png)
    visit.edit()
    check()
    visit.region()
    page.get_by_text("Advanced options").click()
    check()
    assert serious == []
    page.goto(f"{server.url}/docs")
    check()
    assert serious == []
    page.close()


def test_a_file_that_is_no_picture_is_refused_and_words_are_only_words(visit, noisy_png):
    page = visit.page
    file = {"name": "x.png", "mimeType": "image/png", "buffer": b"<script>alert(1)</script>"}
    page.locator(".ms-file").set_input_files(file)
    expect(page.get_by_role("alert")).to_contain_text("must be a picture")
    visit.errors.clear()  # the browser reports the refusal as well
    visit.open(noisy_png)
    visit.edit('replace the <img src=x onerror="document.title=1"> with a <b>house</b>')
    expect(page.locator(".ms-version").nth(1)).to_contain_text("<b>house</b>")
    assert page.title() == "Maskless"


def test_gradio_opens_no_file_of_the_server_for_a_request(server, tmp_path, noisy_png):
    """Its mounted pages would: any value that says it is a file is copied to where it can be read."""
    (tmp_path / "secret.png").write_bytes(noisy_png)
    client = httpx.Client(base_url=server.url, timeout=30)
    file = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    for step in client.get("/config").json()["dependencies"]:
        visitor = f"visitor{step['id']}"
        content = {"data": [file] * len(step["inputs"]), "fn_index": step["id"], "session_hash": visitor}
        if not step["inputs"] or client.post("/gradio_api/queue/join", json=content).status_code != 200:
            continue
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": visitor}) as stream:
            told = next(line for line in stream.iter_lines() if "process_completed" in line)
        assert '"success":false' in told or "secret.png" not in told, told
    assert not list(Path(tempfile.gettempdir()).glob("gradio/**/secret.png"))
    for path in (f"/gradio_api/file={tmp_path / 'secret.png'}", "/gradio_api/upload", "/gradio_api/proxy=http://a.b"):
        assert client.get(path).status_code == 404, path
    assert client.post("/gradio_api/upload", files={"files": noisy_png}).status_code == 404
