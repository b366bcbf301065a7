"""The viewer in a real browser, on a run made by hand. BAGLINE_SCREENSHOTS names a folder for pictures of it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewer_run import HOSTILE, paint, write_run, write_slide

CHROMIUM = "/usr/bin/chromium"
SHOTS = os.environ.get("BAGLINE_SCREENSHOTS", "")

if not Path(CHROMIUM).exists():
    pytest.skip("needs Debian's chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("viewer")
    out, _ = write_run(root)
    write_slide(root / "others" / f"{HOSTILE}.tif", paint(7, 1024))
    shutil.copytree(out, root / "second")
    places = [str(out), str(root / "second"), str(root / "others")]
    command = [sys.executable, "-m", "pipelines", "view", *places, "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        assert server.wait(15) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser) -> Iterator:
    yield from _page(browser, viewport={"width": 1280, "height": 800})


@pytest.fixture
def phone(browser) -> Iterator:
    yield from _page(
        browser, viewport={"width": 390, "height": 780}, is_mobile=True, has_touch=True, color_scheme="dark"
    )


def _page(browser, **settings) -> Iterator:
    context = browser.new_context(**settings)
    found = context.new_page()
    problems: list[str] = []
    found.on("console", lambda message: message.type == "error" and problems.append(message.text))
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("request", lambda request: "127.0.0.1" in request.url or problems.append(f"asked {request.url}"))
    found.set_default_timeout(15000)
    yield found
    context.close()
    assert problems == []


def _wait(page, condition: str) -> None:
    """Until a condition holds; playwright's own waiting evaluates strings in the page, which its policy forbids."""
    for _ in range(150):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(condition)


def _shoot(page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def _open_slide(page, address: str, image_id: str, more: str = "") -> None:
    page.goto(address)
    page.wait_for_selector(".slides a")
    link = page.locator(".slides a", has_text=image_id).first.get_attribute("href")
    page.goto(address.rstrip("/") + link + more)
    page.wait_for_selector(".pane .scale:not([hidden])")
    page.wait_for_selector("#facts dd", state="attached")
    _wait(page, "location.hash.includes('r=')")


def _overlay_px(page) -> int:
    """How many px of the canvas over the slide are painted."""
    return page.evaluate(
        """() => { const c = document.querySelector('canvas.over');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }"""
    )


def _hash(page) -> dict[str, str]:
    from urllib.parse import parse_qs, urlsplit

    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).fragment).items()}


def test_list_filters_and_search(page, address):
    page.goto(address)
    page.wait_for_selector(".slides a")
    assert page.locator(".slides a").count() == 9
    assert page.locator(".research").is_visible()
    page.fill("#words", "tumour D_0")
    assert page.locator(".slides a").count() == 2
    page.select_option("select[name=run]", "run")
    assert page.locator(".slides a").count() == 1
    page.reload()
    page.wait_for_selector(".slides a")
    assert page.locator(".slides a").count() == 1
    page.fill("#words", "nothing like it")
    assert page.locator(".empty").inner_text() == "No slide fits."
    page.fill("#words", "")
    page.select_option("select[name=run]", "")
    _wait(page, "[...document.querySelectorAll('.slides img')].every(i => i.complete && i.naturalWidth)")
    _shoot(page, "list")


def test_a_name_with_a_script_in_it_stays_text(page, address):
    page.goto(address)
    page.wait_for_selector(".slides a")
    assert page.locator(".slides .name", has_text=HOSTILE).count() == 1
    _open_slide(page, address, HOSTILE)
    assert page.locator("#title b").inner_text() == f"{HOSTILE}.tif"
    assert "pwned" not in page.evaluate("document.title.split(' ')[0]")
    assert page.locator("#layers").is_hidden()


def test_zoom_overlays_tile_and_permalink(page, address):
    _open_slide(page, address, "D_0")
    page.wait_for_selector("#layer-attention")
    assert "0.5 µm/px" in page.locator("#facts").inner_text()
    assert re.match(r"\d+ (µm|mm) · [\d.]+×", page.locator(".scale").inner_text())
    page.wait_for_timeout(300)
    with_attention = _overlay_px(page)
    assert with_attention > 10_000
    _shoot(page, "slide")
    page.keyboard.press("h")
    page.keyboard.press("a")
    assert _overlay_px(page) == 0
    page.keyboard.press("g")
    assert 0 < _overlay_px(page) < with_attention
    page.keyboard.press("m")
    page.keyboard.press("h")
    before = float(_hash(page)["r"])
    page.keyboard.press("+")
    _wait(page, f"Number(new URLSearchParams(location.hash.slice(1)).get('r')) < {before * 0.7}")
    x = float(_hash(page)["x"])
    page.keyboard.press("ArrowRight")
    _wait(page, f"Number(new URLSearchParams(location.hash.slice(1)).get('x')) > {x + 5}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(900)
    box = page.locator(".pane").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2 - 40, box["y"] + box["height"] / 2 - 40)
    page.wait_for_selector("#tile:not([hidden])")
    told = page.locator("#tile-told").inner_text()
    assert "768, 768 px" in told
    assert "marked" in told
    assert "33.3 of 100" in told
    _wait(page, "document.querySelector('#tile img').naturalWidth === 256")
    _shoot(page, "tile")
    place = _hash(page)
    assert set(place["o"].split(",")) == {"attention.55", "grid.60", "mask.45"}
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("#tile:not([hidden])")
    page.wait_for_timeout(500)
    assert page.locator("#layer-grid").is_checked()
    assert not page.locator("#layer-annotations").is_checked()
    again = _hash(page)
    assert {name: again[name] for name in ("s", "o", "t")} == {name: place[name] for name in ("s", "o", "t")}
    for name in ("x", "y", "r"):
        assert float(again[name]) == pytest.approx(float(place[name]), rel=0.01)


def test_two_slides_move_together(page, address):
    _open_slide(page, address, "D_0")
    page.keyboard.press("s")
    _wait(page, "location.hash.includes('r2=')")
    page.wait_for_timeout(800)
    before = _hash(page)
    box = page.locator(".pane").first.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 300)
    page.mouse.wheel(0, -500)
    page.wait_for_timeout(1500)
    after = _hash(page)
    assert float(after["r"]) < 0.9 * float(before["r"])
    assert float(after["r2"]) / float(after["r"]) == pytest.approx(float(before["r2"]) / float(before["r"]), rel=0.02)
    moved = float(after["x"]) - float(before["x"])
    assert float(after["x2"]) - float(before["x2"]) == pytest.approx(moved, abs=3)
    second = page.locator(".pane").nth(1).bounding_box()
    page.mouse.move(second["x"] + 200, second["y"] + 300)
    page.mouse.down()
    page.mouse.move(second["x"] + 120, second["y"] + 300, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1500)
    last = _hash(page)
    assert float(last["x2"]) > float(after["x2"]) + 10
    assert float(last["x"]) - float(after["x"]) == pytest.approx(float(last["x2"]) - float(after["x2"]), abs=3)
    _shoot(page, "two")
    page.keyboard.press("s")
    assert "with" not in _hash(page)


def test_keys_are_told_and_slides_follow_each_other(page, address):
    _open_slide(page, address, "C_0")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    _shoot(page, "keys")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    _wait(page, "document.querySelector('#title b').textContent === 'D_0'")
    page.keyboard.press("p")
    _wait(page, "document.querySelector('#title b').textContent === 'C_0'")


def test_a_phone(phone, address):
    phone.goto(address)
    phone.wait_for_selector(".slides a")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    _shoot(phone, "phone-list")
    _open_slide(phone, address, "D_0")
    assert phone.locator(".research").is_visible()
    assert phone.locator("#side").is_hidden()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    _shoot(phone, "phone-slide")
    phone.tap("#tool-panel")
    phone.wait_for_selector("#layer-attention")
    assert phone.locator(".pane").bounding_box()["height"] > 250
    _shoot(phone, "phone-panel")
    phone.goto(f"{address}run")
    phone.wait_for_selector("#metrics")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    _shoot(phone, "phone-run")


def test_the_dashboard(page, address):
    page.goto(f"{address}run")
    page.wait_for_selector("#lineage svg")
    metrics = page.locator("#metrics").inner_text()
    assert "1.000" in metrics
    assert "0.000 – 1.000" in metrics
    assert page.locator("#curves .chart-card").count() == 4
    first = page.locator("#worst tbody tr").first.inner_text()
    assert first.startswith("C")
    assert "tumour" in first
    assert "a block is damaged" in page.locator("#failures").inner_text()
    page.locator("#lineage g.node", has_text="model").first.click()
    assert page.locator("#lineage g.node.lit").count() == 6
    _shoot(page, "runs")
    page.locator(".pick input").nth(1).uncheck()
    _wait(page, "document.querySelector('h1').textContent === 'run'")
    _shoot(page, "run")
    page.locator("#worst a").first.click()
    _wait(page, "document.querySelector('#title b')?.textContent === 'C_0'")
