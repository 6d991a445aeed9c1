"""Tornado on the loop: its own streams on add_reader() and add_writer()."""

import asyncio

import pytest

pytest.importorskip("tornado")

from tornado import httpclient, httpserver, ioloop, netutil, web, websocket


class Page(web.RequestHandler):
    async def get(self):
        await asyncio.sleep(0.001)
        self.write("x" * 100000)

    def post(self):
        self.write(str(len(self.request.body)))


class Echo(websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)


def test_http_and_websocket(run):
    async def main():
        assert ioloop.IOLoop.current().asyncio_loop is asyncio.get_running_loop()
        server = httpserver.HTTPServer(web.Application([("/", Page), ("/echo", Echo)]))
        sockets = netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        address = f"127.0.0.1:{sockets[0].getsockname()[1]}"
        client = httpclient.AsyncHTTPClient(force_instance=True)
        responses = await asyncio.gather(*[client.fetch(f"http://{address}/") for _ in range(20)])
        assert [len(response.body) for response in responses] == [100000] * 20
        response = await client.fetch(f"http://{address}/", method="POST", body=b"x" * 500000)
        assert response.body == b"500000"
        connection = await websocket.websocket_connect(f"ws://{address}/echo")
        for number in range(50):
            await connection.write_message(str(number))
            assert await connection.read_message() == str(number)
        connection.close()
        server.stop()
        await server.close_all_connections()
        client.close()

    run(main())


def test_its_own_loop_is_made_on_this_one(loop):
    asyncio.set_event_loop(loop)
    try:
        made = ioloop.IOLoop.current()
        assert made.asyncio_loop is loop
        assert made.run_sync(lambda: asyncio.sleep(0, 7)) == 7
        made.add_timeout(made.time() + 0.001, made.stop)
        made.start()
        made.close()
        assert loop.is_closed()
    finally:
        asyncio.set_event_loop(None)
