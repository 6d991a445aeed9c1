"""The lifespan protocol: what the application is told, what becomes of one that does not take part."""

import json
import signal

import pytest

LIFESPAN = """
    import json

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            print(json.dumps([scope["type"], scope["asgi"], scope["state"]]), flush=True)
            message = await receive()
            print(message["type"], flush=True)
            scope["state"]["answer"] = 42
            await send({"type": "lifespan.startup.complete"})
            message = await receive()
            print(message["type"], flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope["state"]["own"] = True
        body = repr(scope["state"]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
"""

# What an application may do on a lifespan scope that is no lifespan protocol, and still be served in the mode "auto".
NO_LIFESPAN = {
    "raises": "raise RuntimeError('only http')",
    "returns": "return",
    "returns after the first message": "await receive(); return",
    "raises after the first message": "await receive(); raise KeyError(scope['type'])",
    "answers as to a request": "await send({'type': 'http.response.start', 'status': 200, 'headers': []})",
    "sends nonsense": "await send({'type': 'nonsense'})",
}


def application(on_lifespan):
    return f"""
        import asyncio

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                {on_lifespan}
                return
            await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
            await send({{"type": "http.response.body", "body": b"ok"}})
    """


def test_startup_state_and_shutdown(serve, client, write):
    write("spanned.py", LIFESPAN)
    command, url = serve("spanned:app", "--no-access-log")
    assert client.get(url).text == "{'answer': 42, 'own': True}"
    # Each request has a copy of its own.
    assert client.get(url).text == "{'answer': 42, 'own': True}"
    assert command.stop() == 0
    scope, *messages = command.stdout.splitlines()
    assert json.loads(scope) == ["lifespan", {"version": "3.0", "spec_version": "2.0"}, {}]
    assert messages == ["lifespan.startup", "lifespan.shutdown"]


def test_log_of_a_whole_life(serve, client, write):
    write("spanned.py", LIFESPAN)
    command, url = serve("spanned:app")
    pid = command.process.pid
    assert command.stop() == 0
    assert command.stderr.splitlines() == [
        f"INFO:     Started server process [{pid}]",
        "INFO:     Waiting for application startup.",
        "INFO:     Application startup complete.",
        f"INFO:     Bolide running on {url} (Press CTRL+C to quit)",
        "INFO:     Shutting down",
        "INFO:     Waiting for application shutdown.",
        "INFO:     Application shutdown complete.",
        f"INFO:     Finished server process [{pid}]",
    ]


@pytest.mark.parametrize("on_lifespan", NO_LIFESPAN.values(), ids=NO_LIFESPAN)
def test_an_application_without_lifespan_is_served(serve, client, write, on_lifespan):
    write("plain.py", application(on_lifespan))
    command, url = serve("plain:app")
    assert client.get(url).text == "ok"
    assert command.stop() == 0
    assert "Traceback" not in command.stderr


def test_an_application_that_waits_for_ever_after_startup_is_stopped(serve, client, write):
    write(
        "plain.py",
        application("await receive(); await send({'type': 'lifespan.startup.complete'}); await receive(); return"),
    )
    command, url = serve("plain:app")
    assert client.get(url).text == "ok"
    assert command.stop(signal.SIGINT) == 0


def test_off_does_not_tell_the_application(serve, client, write):
    write("plain.py", application("print('told', flush=True)"))
    command, url = serve("plain:app", "--lifespan", "off", "--no-access-log")
    assert client.get(url).text == "ok"
    assert command.stop() == 0
    assert command.stdout == ""
    assert "application startup" not in command.stderr


def test_on_refuses_an_application_that_raises(bolide, write):
    write("plain.py", application("raise RuntimeError('no lifespan here')"))
    command = bolide("plain:app", "--port", "0", "--lifespan", "on")
    assert command.wait() == 3
    assert "RuntimeError: no lifespan here" in command.stderr
    assert command.stderr.splitlines()[-1] == "ERROR:    Application startup failed. Exiting."


@pytest.mark.parametrize("lifespan", ["auto", "on"])
def test_a_failed_startup_ends_with_exit_code_3(bolide, write, lifespan):
    failing = "await receive(); await send({'type': 'lifespan.startup.failed', 'message': 'no database'})"
    write("plain.py", application(failing))
    command = bolide("plain:app", "--port", "0", "--lifespan", lifespan)
    assert command.wait() == 3
    lines = command.stderr.splitlines()
    assert lines[-2:] == ["ERROR:    no database", "ERROR:    Application startup failed. Exiting."]
    assert "running on" not in command.stderr


def test_a_failed_shutdown_ends_with_exit_code_3(serve, write):
    complete = "await receive(); await send({'type': 'lifespan.startup.complete'}); await receive(); "
    write("plain.py", application(complete + "await send({'type': 'lifespan.shutdown.failed', 'message': 'stuck'})"))
    command, _ = serve("plain:app")
    assert command.stop() == 3
    assert "ERROR:    stuck\nERROR:    Application shutdown failed. Exiting.\n" in command.stderr


def test_what_shutdown_raises_is_logged_in_the_mode_auto_too(serve, write):
    complete = "await receive(); await send({'type': 'lifespan.startup.complete'}); await receive(); "
    write("plain.py", application(complete + "raise RuntimeError('cannot close')"))
    command, _ = serve("plain:app")
    assert command.stop() == 0
    assert "RuntimeError: cannot close" in command.stderr


def test_connections_are_accepted_only_after_startup(bolide, client, write, tmp_path):
    """The address is bound before startup, yet nobody is let in before the application is ready."""
    write(
        "slow.py",
        application(
            "await receive(); import socket; s = socket.socket();"
            " refused = s.connect_ex(('127.0.0.1', int(open('port').read())));"
            " print('refused' if refused else 'accepted', flush=True); s.close();"
            " await send({'type': 'lifespan.startup.complete'}); await receive(); return"
        ),
    )
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "port").write_text(str(port))
    command = bolide("slow:app", "--port", str(port))
    url = command.wait_ready()
    assert client.get(url).text == "ok"
    assert command.stop() == 0
    assert command.stdout.splitlines()[0] == "refused"
