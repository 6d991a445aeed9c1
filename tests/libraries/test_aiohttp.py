"""aiohttp on the loop: its client against its server, over TCP, TLS and a Unix socket."""

import asyncio

import pytest

aiohttp = pytest.importorskip("aiohttp")
from aiohttp import web  # noqa: E402


def application():
    async def text(request):
        return web.Response(text=f"hello {request.match_info['name']}")

    async def echo(request):
        return web.Response(body=await request.read(), headers={"x-length": str(request.content_length)})

    async def numbers(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(100):
            await response.write(b"%d\n" % number)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def talk(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    async def slow(request):
        await asyncio.sleep(1)

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.get("/text/{name}", text), web.post("/echo", echo), web.get("/numbers", numbers)])
    app.add_routes([web.get("/talk", talk), web.get("/slow", slow)])
    return app


async def serving(make_site):
    runner = web.AppRunner(application())
    await runner.setup()
    site = make_site(runner)
    await site.start()
    return runner


def test_requests(run):
    async def main():
        runner = await serving(lambda runner: web.TCPSite(runner, "127.0.0.1", 0))
        base = "http://{}:{}".format(*runner.addresses[0][:2])
        async with aiohttp.ClientSession(base) as session:

            async def get(number):
                async with session.get(f"/text/{number}") as response:
                    assert response.status == 200
                    return await response.text()

            assert await asyncio.gather(*(get(n) for n in range(200))) == [f"hello {n}" for n in range(200)]
            body = bytes(range(256)) * 40_000
            async with session.post("/echo", data=body) as response:
                assert await response.read() == body
                assert response.headers["x-length"] == str(len(body))
            async with session.get("/numbers") as response:
                assert await response.read() == b"".join(b"%d\n" % n for n in range(100))
            async with session.ws_connect("/talk") as socket:
                for word in ("one", "two", "three" * 10_000):
                    await socket.send_str(word)
                    assert (await socket.receive()).data == word.upper()
            with pytest.raises(asyncio.TimeoutError):
                await session.get("/slow", timeout=aiohttp.ClientTimeout(total=0.05))
            async with session.get("/none") as response:
                assert response.status == 404
        await runner.cleanup()

    run(main())


def test_a_streamed_upload(run):
    async def pieces():
        for _ in range(50):
            yield b"x" * 100_000
            await asyncio.sleep(0)

    async def main():
        runner = await serving(lambda runner: web.TCPSite(runner, "127.0.0.1", 0))
        base = "http://{}:{}".format(*runner.addresses[0][:2])
        async with aiohttp.ClientSession(base) as session, session.post("/echo", data=pieces()) as response:
            assert len(await response.read()) == 5_000_000
        await runner.cleanup()

    run(main())


def test_a_unix_socket(run, tmp_path):
    async def main():
        path = str(tmp_path / "s")
        runner = await serving(lambda runner: web.UnixSite(runner, path))
        connector = aiohttp.UnixConnector(path)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://unix/text/socket") as response,
        ):
            assert await response.text() == "hello socket"
        await runner.cleanup()

    run(main())


def test_tls(run):
    trustme = pytest.importorskip("trustme")
    import ssl

    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async def main():
        runner = await serving(lambda runner: web.TCPSite(runner, "localhost", 0, ssl_context=server_context))
        base = f"https://localhost:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=client_context)) as session:
            body = b"y" * 3_000_000
            for _ in range(3):
                async with session.post("/echo", data=body) as response:
                    assert await response.read() == body
        await runner.cleanup()

    run(main())
