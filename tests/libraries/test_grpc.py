"""grpc.aio on the loop: its poller thread wakes the loop through a watched descriptor."""

import asyncio

import pytest

grpc = pytest.importorskip("grpc")
pytest.importorskip("grpc.aio")


def handlers():
    """A service without generated code: bytes in, bytes out."""

    async def upper(request, context):
        if request == b"fail":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "asked to")
        return request.upper()

    async def count(request, context):
        for number in range(int(request)):
            yield b"%d" % number
            await asyncio.sleep(0)

    async def total(requests, context):
        return b"%d" % sum([len(request) async for request in requests])

    async def echo(requests, context):
        async for request in requests:
            yield request

    methods = {
        "Upper": grpc.unary_unary_rpc_method_handler(upper),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    return grpc.method_handlers_generic_handler("Words", methods)


def test_all_four_kinds_of_calls(run):
    async def main():
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            upper = channel.unary_unary("/Words/Upper")
            assert await asyncio.gather(*(upper(b"word %d" % n) for n in range(200))) == [
                b"WORD %d" % n for n in range(200)
            ]
            assert await upper(b"x" * 1_000_000) == b"X" * 1_000_000
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await upper(b"fail")
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            numbers = [number async for number in channel.unary_stream("/Words/Count")(b"100")]
            assert numbers == [b"%d" % n for n in range(100)]

            async def pieces():
                for _ in range(100):
                    yield b"x" * 1000

            assert await channel.stream_unary("/Words/Total")(pieces()) == b"100000"
            assert [piece async for piece in channel.stream_stream("/Words/Echo")(pieces())] == [b"x" * 1000] * 100
        await server.stop(1)

    run(main())
