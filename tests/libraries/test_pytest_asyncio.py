"""pytest-asyncio with the loop: by a policy as its documentation says, in a pytest of its own."""

import subprocess
import sys

import pytest
from support.loops import LOOP

pytest.importorskip("pytest_asyncio")

SUITE = """
import asyncio
import warnings
import pytest
import pytest_asyncio
import {module}

@pytest.fixture(scope="session")
def event_loop_policy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return {policy}()

@pytest_asyncio.fixture
async def server():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    serving = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield serving.sockets[0].getsockname()
    serving.close()
    await serving.wait_closed()

@pytest.mark.asyncio
async def test_the_kind_of_loop():
    assert type(asyncio.get_running_loop()).__module__.startswith("{module}")

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(5))
async def test_a_fixture(server, number):
    reader, writer = await asyncio.open_connection(*server)
    writer.write(b"%d\\n" % number)
    assert await reader.read() == b"%d\\n" % number
    writer.close()

@pytest.mark.asyncio(loop_scope="module")
class TestTogether:
    loop = None
    async def test_first(self):
        TestTogether.loop = asyncio.get_running_loop()
    async def test_second(self):
        assert asyncio.get_running_loop() is TestTogether.loop

@pytest.mark.asyncio
@pytest.mark.xfail(strict=True)
async def test_that_fails():
    await asyncio.sleep(0)
    assert False
"""


HOOK = """
import {module}

def pytest_asyncio_loop_factories(config, item):
    return {{"{module}": {factory}}}
"""


def run_suite(folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error::ResourceWarning"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "8 passed, 1 xfailed" in result.stdout


def test_a_suite(tmp_path):
    policy = "asyncio.DefaultEventLoopPolicy" if LOOP == "asyncio" else f"{LOOP}.EventLoopPolicy"
    (tmp_path / "test_suite.py").write_text(SUITE.format(module=LOOP, policy=policy))
    run_suite(tmp_path)


def test_a_suite_with_a_loop_factory(tmp_path):
    """The hook that the guide shows, which takes the fixture's place."""
    from pytest_asyncio import plugin

    if not hasattr(getattr(plugin, "PytestAsyncioSpecs", None), "pytest_asyncio_loop_factories"):
        pytest.skip("this pytest-asyncio has no loop factories")
    factory = "asyncio.SelectorEventLoop" if LOOP == "asyncio" else f"{LOOP}.new_event_loop"
    suite = SUITE.format(module=LOOP, policy="None")
    fixture = suite.index('@pytest.fixture(scope="session")')
    suite = suite[:fixture] + suite[suite.index("@pytest_asyncio.fixture") :]
    (tmp_path / "test_suite.py").write_text(suite)
    (tmp_path / "conftest.py").write_text(HOOK.format(module=LOOP, factory=factory))
    run_suite(tmp_path)
