"""A request runs as a real asyncio Task, so that everything of asyncio and anyio works from its first await."""

import contextlib
import json
import socket
import sys
import threading

import pytest
from support import KIND, ServerProcess

REQUESTS = 200


def test_current_task_is_a_task(connection):
    told = json.loads(connection.get("/task-facts").body)
    expected = {
        "is_task": True,
        "listed": True,
        "name": True,
        "done": False,
        "cancelling": 0,
        "loop": True,
        "coroutine": True,
    }
    assert told == {"before": expected, "after": expected}


def test_task_group(connection):
    assert connection.get("/task-group").text == "[0, 1, 2, 3, 4]"


def test_task_group_cancels_the_others(connection):
    assert json.loads(connection.get("/task-group-failure").body) == {"caught": 1, "cancelled": 1}


def test_timeout(connection):
    assert connection.get("/timeout").body == b"timed out"


@pytest.mark.skipif(KIND != "bolide", reason="uvicorn's receive() is a coroutine function")
def test_awaited_by_hand(connection):
    expected = [*["TypeError"] * 3, True, "RuntimeError", "RuntimeError", "CancelledError", True, "RuntimeError"]
    assert json.loads(connection.get("/awaited-by-hand").body) == expected
    assert connection.get("/text").status == 200


def test_cancel_before_the_first_await(connection):
    assert connection.get("/cancel-self").body == b"caught it"


def test_anyio(connection):
    told = json.loads(connection.get("/anyio-facts").body)
    assert told == {"cancelled": True, "done": [0, 1, 2], "thread": True, "task": True}


@pytest.mark.parametrize("name", ["plain", "eager", "subclass"])
@pytest.mark.skipif(KIND != "bolide", reason="uvicorn sets up its own loop's factory")
def test_task_factory_of_the_user(name):
    if name == "eager" and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with 3.12")
    with ServerProcess("task_factory:app", env={"TASK_FACTORY": name}) as server, server.connect() as connection:
        for number in range(3):
            told = json.loads(connection.get(f"/?{number}").body)
            assert told == {"made_here": True, "task": "Own" if name == "subclass" else "Task", "variable": "unset"}
        response = connection.get("/fail")
        assert response.status == 500
        assert server.stop() == 0


@pytest.mark.skipif(KIND != "bolide", reason="uvloop cannot be patched")
def test_a_task_that_runs_the_loop():
    """As nest_asyncio lets it: by requests one after another, pipelined, at once, and by clients that go meanwhile."""
    with ServerProcess("nesting_app:app", env={"NESTING": "from the start"}) as server:
        pipelined = b"".join(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n%d" % n for n in range(9))
        last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.create_connection(server.address, timeout=20)) for _ in range(10)]
            for sock in socks:
                sock.sendall(pipelined + last)
            for _ in range(10):
                with socket.create_connection(server.address, timeout=20) as hasty:
                    hasty.sendall(pipelined)
            for sock in socks:
                answers = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
                bodies = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
                assert bodies == [b"%d" % n for n in range(9)] + [b"nothing"]
        assert server.stop() == 0


@pytest.mark.skipif(KIND != "bolide", reason="uvloop cannot be patched")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="the first step is never taken within the poll")
def test_the_request_that_applies_nest_asyncio_cannot_run_the_loop_yet():
    with ServerProcess("nesting_app:app", env={"NESTING": "later"}) as server:
        assert server.get("/begin").status == 500
        server.log.wait_for("cannot be run again from within")
        assert server.get("/").body == b"nothing"
        assert server.stop() == 0


def test_executor(connection):
    assert connection.get("/executor").body == b"another thread"


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_receive_and_send_called_in_another_thread(connection, size):
    body = b"%" * size
    assert connection.request("POST", "/called-elsewhere", body=body).body == body


def test_loop_is_ours(connection):
    module = connection.get("/loop-name").text.split(".")[0]
    assert module == "bolide" if KIND == "bolide" else module in ("uvloop", "asyncio", "bolide")


@pytest.mark.parametrize("connections", ["one", "many"])
def test_context_variables_are_the_requests_own(server, connection, connections):
    for number in range(10):
        response = connection.get(f"/context?{number}") if connections == "one" else server.get(f"/context?{number}")
        assert response.text == f"unset {number}"


def test_many_requests_at_once(server, key):
    """None is answered before all of them run: they are truly concurrent."""
    connections = [server.connect() for _ in range(REQUESTS)]
    for connection in connections:
        connection.send_request("GET", f"/rendezvous?key={key}&count={REQUESTS}")
    for connection in connections:
        assert connection.read_response().text == str(REQUESTS)
        connection.close()


def test_many_clients_in_threads(server):
    """Clients of any speed, each on its own connection, each gets its own answers."""
    wrong = []

    def client(name: int) -> None:
        with server.connect() as connection:
            for number in range(50):
                text = connection.request("POST", f"/length/{name}/{number}", body=b"x" * number).text
                if text != f"/length/{name}/{number}? {number}":
                    wrong.append(text)

    threads = [threading.Thread(target=client, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_background_work_does_not_hold_up_the_answer(connection, apps, key):
    """The client has its answer, and the connection serves another request, before the work ends."""
    assert connection.get(f"/background?key={key}").body == b"answered"
    apps.wait(f"{key}.working")
    assert apps.get(f"{key}.done") is None
    assert connection.get("/text").body == b"some text"
    apps.set(f"{key}.release")
    assert apps.wait(f"{key}.done") == "finished"


@pytest.mark.parametrize("size", [8, 5_000_000])
def test_starlette_background_task(connection, apps, key, size):
    response = connection.get(f"/starlette-background?key={key}&size={size}")
    assert len(response.body) == size
    apps.wait(f"{key}.working")
    assert apps.get(f"{key}.done") is None
    apps.set(f"{key}.release")
    assert apps.wait(f"{key}.done") == "finished"


def test_background_work_goes_on_when_the_client_leaves(server, apps, key):
    with server.connect() as connection:
        connection.get(f"/background?key={key}")
    apps.wait(f"{key}.working")
    apps.set(f"{key}.release")
    assert apps.wait(f"{key}.done") == "finished"
