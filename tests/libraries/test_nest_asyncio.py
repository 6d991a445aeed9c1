"""nest_asyncio on the loop, which it cannot patch and need not."""

import pytest
from support.loops import run_script

MODULES = ["nest_asyncio", "nest_asyncio2"]

PROGRAM = """
import {module} as nest_asyncio

async def five():
    await asyncio.sleep(0.001)
    return 5

def call():
    return asyncio.run(five()) + asyncio.get_event_loop().run_until_complete(five())

async def main():
    if not early:
        nest_asyncio.apply()
    task, beside = asyncio.current_task(), asyncio.create_task(five())
    assert call() == 10
    async def deeper():
        return call()
    assert asyncio.run(deeper()) == 10
    assert asyncio.current_task() is task
    server = await asyncio.start_server(lambda reader, writer: (writer.write(b"x"), writer.close()), "127.0.0.1", 0)
    async def ask():
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        data = await reader.read()
        writer.close()
        return data
    assert [asyncio.run(ask()) for _ in range(5)] == [b"x"] * 5
    server.close()
    return await beside

early = sys.argv[1] == "early"
if early:
    nest_asyncio.apply()  # which patches asyncio's own loop
for _ in range(2):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(main()) == 5
loop = new_event_loop()
asyncio.set_event_loop(loop)
nest_asyncio.apply(loop)
assert call() == 10
loop.close()
"""


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("module", MODULES)
def test_nested_runs(module, when):
    pytest.importorskip(module)
    run_script(PROGRAM.format(module=module), when, options=("-W", "ignore::DeprecationWarning"))


@pytest.mark.parametrize("module", MODULES)
def test_asyncios_loop_within_this_one_and_the_other_way_round(module):
    pytest.importorskip(module)
    run_script(
        f"""
        import {module} as nest_asyncio
        nest_asyncio.apply()
        theirs = asyncio.SelectorEventLoop()
        nest_asyncio.apply(theirs)
        ours = new_event_loop()

        async def inner():
            await asyncio.sleep(0.001)
            return 5

        async def outer(loop):
            return loop.run_until_complete(inner()) + await inner()

        assert ours.run_until_complete(outer(theirs)) == 10
        assert theirs.run_until_complete(outer(ours)) == 10
        ours.close()
        theirs.close()
        """,
        options=("-W", "ignore::DeprecationWarning"),
    )
