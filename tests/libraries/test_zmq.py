"""pyzmq's asyncio sockets on the loop, which watches the descriptors of their queues."""

import asyncio

import pytest

zmq = pytest.importorskip("zmq")
zmq_asyncio = pytest.importorskip("zmq.asyncio")


@pytest.fixture
def context():
    with zmq_asyncio.Context() as made:
        yield made
        made.destroy(linger=0)


def test_push_and_pull(run, context):
    async def main():
        push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")

        async def send():
            for number in range(2000):
                await push.send_multipart([b"%d" % number, b"x" * 100])

        async def receive():
            return [(await pull.recv_multipart())[0] for _ in range(2000)]

        _, received = await asyncio.gather(send(), receive())
        assert received == [b"%d" % number for number in range(2000)]
        poller = zmq_asyncio.Poller()
        poller.register(pull, zmq.POLLIN)
        assert await poller.poll(1) == []
        await push.send(b"x")
        assert await poller.poll(20000) == [(pull, zmq.POLLIN)]

    run(main())


def test_requests_and_cancellation(run, context):
    async def main():
        server, client = context.socket(zmq.REP), context.socket(zmq.REQ)
        server.bind("inproc://parcels")
        client.connect("inproc://parcels")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.recv(), 0.01)

        async def answer():
            for _ in range(200):
                await server.send(await server.recv())

        task = asyncio.create_task(answer())
        for number in range(200):
            await client.send_json(number)
            assert await client.recv_json() == number
        await task

    run(main())
