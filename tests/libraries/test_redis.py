"""redis-py's asyncio face on the loop, against a real Redis."""

import asyncio

import pytest

redis = pytest.importorskip("redis.asyncio")


def test_commands_and_pipelines(run, redis_port):
    async def main():
        async with redis.Redis(port=redis_port, decode_responses=True, max_connections=300) as client:
            assert await client.ping()
            await client.set("key", "value")
            assert await client.get("key") == "value"
            big = "x" * 5_000_000
            await client.set("big", big)
            assert await client.get("big") == big
            async with client.pipeline(transaction=True) as pipe:
                for number in range(1000):
                    pipe.incrby("sum", number)
                results = await pipe.execute()
            assert results[-1] == sum(range(1000))
            await asyncio.gather(*(client.rpush("list", n) for n in range(200)))
            assert sorted(map(int, await client.lrange("list", 0, -1))) == list(range(200))
            with pytest.raises(redis.ResponseError):
                await client.incr("key")
            task = asyncio.create_task(client.blpop("empty", timeout=30))
            await asyncio.sleep(0.02)
            await client.rpush("empty", "now")
            assert [*await task] == ["empty", "now"]

    run(main())


def test_publish_and_subscribe(run, redis_port):
    async def main():
        async with redis.Redis(port=redis_port, decode_responses=True) as client, client.pubsub() as channel:
            await channel.subscribe("news")
            assert (await channel.get_message(timeout=5))["type"] == "subscribe"

            async def listen():
                heard = []
                async for message in channel.listen():
                    heard.append(message["data"])
                    if message["data"] == "end":
                        return heard

            listening = asyncio.create_task(listen())
            for number in range(200):
                assert await client.publish("news", str(number)) == 1
            await client.publish("news", "end")
            assert await listening == [*map(str, range(200)), "end"]
            await channel.unsubscribe()

    run(main())
