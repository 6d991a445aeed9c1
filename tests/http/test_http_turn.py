"""Many connections whose requests are there in the same turn of the loop: taken in together, each answered for itself.

The clients stand in the server's own process: what they send with no await in between is there before the loop polls.
"""

from support.asgi_script import run_server

APP = """
started = []

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        return
    started.append(scope["path"])
    await before_body(scope)
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message.get("more_body", False)
    answer = b"<%s %d>" % (scope["path"].encode(), len(body))
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})

async def before_body(scope):
    pass

async def open_clients(count):
    # One request each, so that the server has accepted them all.
    clients = [await connect(b"GET /first HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n") for _ in range(count)]
    for client in clients:
        assert (await read(client, b"</first 0>")).endswith(b"</first 0>")
    started.clear()
    return clients

def get(path):
    return b"GET %s HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n" % path

def post(path, size):
    return b"POST %s HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: %d\\r\\n\\r\\n" % (path, size) + bytes(size)
"""


def test_each_gets_its_own_answer():
    run_server(
        APP
        + """
async def main():
    clients = await open_clients(150)
    for turn in range(3):
        for number, client in enumerate(clients):
            path = b"/%d/%d" % (turn, number)
            client.sendall(get(path) if number % 2 else post(path, number * 17))
        for number, client in enumerate(clients):
            size = 0 if number % 2 else number * 17
            answer = b"</%d/%d %d>" % (turn, number, size)
            assert (await read(client, b">")).endswith(answer), answer
    assert sorted(started) == sorted(f"/{turn}/{number}" for turn in range(3) for number in range(150))
"""
    )


def test_all_kinds_of_requests_side_by_side():
    run_server(
        APP
        + """
CHUNKED = post(b"/chunked", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
CHUNKED += b"3\\r\\nabc\\r\\n0\\r\\n\\r\\n"

async def main():
    clients = await open_clients(40)
    kinds = [
        (get(b"/plain"), [b"</plain 0>"]),
        (get(b"/a") + get(b"/b") + post(b"/c", 9), [b"</a 0>", b"</b 0>", b"</c 9>"]),
        (post(b"/large", 300_000), [b"</large 300000>"]),
        (post(b"/larger-than-a-piece", 3000), [b"</larger-than-a-piece 3000>"]),
        (CHUNKED, [b"</chunked 3>"]),
        (UPGRADE + b"\\x81\\x82\\0\\0\\0\\0hi", [b" 101 ", b"\\x81\\x02hi"]),
        (b"nonsense\\r\\n\\r\\n", [b" 400 "]),
        (get(b"/%s" % (b"x" * 1900)), [b"</%s 0>" % (b"x" * 1900)]),
    ]
    for number, client in enumerate(clients):
        client.setblocking(True)
    senders = [loop.run_in_executor(None, client.sendall, kinds[2][0])
               for number, client in enumerate(clients) if number % len(kinds) == 2]
    for number, client in enumerate(clients):
        if number % len(kinds) != 2:
            client.sendall(kinds[number % len(kinds)][0])
    await asyncio.gather(*senders)
    for number, client in enumerate(clients):
        client.setblocking(False)
        got = b""
        answers = kinds[number % len(kinds)][1]
        for answer in answers:
            if answer not in got:
                got += await read(client, answer)
            assert answer in got, (answer, got[:300])
        places = [got.index(answer) for answer in answers]
        assert places == sorted(places)
"""
    )


def test_heads_in_two_pieces():
    run_server(
        APP
        + """
async def main():
    clients = await open_clients(50)
    for number, client in enumerate(clients):
        client.sendall(get(b"/%d" % number)[:20])
    await asyncio.sleep(0)
    for number, client in enumerate(clients):
        client.sendall(get(b"/%d" % number)[20:])
    for number, client in enumerate(clients):
        assert (await read(client, b">")).endswith(b"</%d 0>" % number)
"""
    )


def test_peers_that_leave_in_the_same_turn():
    run_server(
        APP
        + """
async def main():
    clients = await open_clients(60)
    for number, client in enumerate(clients):
        client.sendall(get(b"/%d" % number))
        if number % 3 == 1:
            client.shutdown(socket.SHUT_WR)
        elif number % 3 == 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
            client.close()
    for number, client in enumerate(clients):
        if number % 3 < 2:
            assert (await read(client, b">")).endswith(b"</%d 0>" % number)
    assert not errors and not reports
"""
    )


def test_an_application_that_ends_all_connections_meanwhile():
    run_server(
        APP
        + """
async def before_body(scope):
    if scope["path"] == "/ends-all":
        server.abort()

async def main():
    clients = await open_clients(60)
    for number, client in enumerate(clients):
        client.sendall(get(b"/ends-all" if number == 5 else b"/%d" % number))
    for client in clients:
        await read(client, b"never")
    assert not reports
"""
    )


def test_an_application_that_raises_leaves_the_others_alone():
    run_server(
        APP
        + """
import logging
logging.disable()

async def before_body(scope):
    if scope["path"].endswith("7"):
        raise RuntimeError(scope["path"])

async def main():
    clients = await open_clients(80)
    for number, client in enumerate(clients):
        client.sendall(get(b"/%d" % number))
    for number, client in enumerate(clients):
        got = await read(client, b"Error" if number % 10 == 7 else b">")
        assert (b" 500 " if number % 10 == 7 else b"</%d 0>" % number) in got
"""
    )
