"""Playwright on the loop: a subprocess with pipes (its driver), and Chromium behind it."""

import asyncio
import shutil

import pytest

playwright = pytest.importorskip("playwright.async_api")

PAGE = b"""<!doctype html><title>Parcels</title><h1 id=a>waiting</h1>
<button onclick="fetch('/value').then(r => r.text()).then(t => a.textContent = t)">ask</button>"""


async def answer(reader, writer):
    request = await reader.readuntil(b"\r\n\r\n")
    body = b"an answer" if request.startswith(b"GET /value ") else PAGE
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    writer.write(head % len(body) + body)
    await writer.drain()
    writer.close()


@pytest.mark.timeout(150)
def test_a_page(loop):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium (Debian: chromium)")

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with playwright.async_playwright() as started:
            options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            browser = await started.chromium.launch(executable_path=chromium, args=options)
            page = await browser.new_page()
            await page.goto(address)
            assert await page.title() == "Parcels"
            await page.click("button")
            await playwright.expect(page.locator("#a")).to_have_text("an answer")
            assert len(await page.screenshot()) > 1000
            assert await page.evaluate("Promise.all([1, 2, 3].map(async n => n * 2))") == [2, 4, 6]
            await browser.close()
        server.close()

    loop.run_until_complete(asyncio.wait_for(main(), 120))
