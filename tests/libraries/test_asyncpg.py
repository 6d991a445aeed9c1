"""asyncpg on the loop, against a real PostgreSQL."""

import asyncio

import pytest

asyncpg = pytest.importorskip("asyncpg")


def test_queries(run, postgresql):
    async def main():
        connection = await asyncpg.connect(host="127.0.0.1", port=postgresql, user="bolide", database="postgres")
        await connection.execute("CREATE TABLE parcels (id serial PRIMARY KEY, name text, weight int)")
        rows = [(f"parcel {number}", number) for number in range(2000)]
        await connection.copy_records_to_table("parcels", records=rows, columns=["name", "weight"])
        assert await connection.fetchval("SELECT count(*) FROM parcels") == 2000
        statement = await connection.prepare("SELECT name FROM parcels WHERE weight = $1")
        for number in (0, 7, 1999):
            assert await statement.fetchval(number) == f"parcel {number}"
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("INSERT INTO parcels VALUES (1, 'a', 1)")
        async with connection.transaction():
            seen = [row["weight"] async for row in connection.cursor("SELECT weight FROM parcels ORDER BY weight")]
        assert seen == list(range(2000))
        await connection.execute("DROP TABLE parcels")
        await connection.close()

    run(main())


def test_a_pool(run, postgresql):
    async def main():
        settings = {"host": "127.0.0.1", "port": postgresql, "user": "bolide", "database": "postgres"}
        async with asyncpg.create_pool(**settings, min_size=2, max_size=8) as pool:

            async def square(number):
                async with pool.acquire() as connection:
                    return await connection.fetchval("SELECT $1::int * $1::int", number)

            assert await asyncio.gather(*(square(n) for n in range(300))) == [n * n for n in range(300)]

    run(main())


def test_notifications_cancels_and_timeouts(run, postgresql):
    async def main():
        settings = {"host": "127.0.0.1", "port": postgresql, "user": "bolide", "database": "postgres"}
        listener = await asyncpg.connect(**settings)
        sender = await asyncpg.connect(**settings)
        told = asyncio.get_running_loop().create_future()
        await listener.add_listener("news", lambda *arguments: told.set_result(arguments[-1]))
        await sender.execute("NOTIFY news, 'hello'")
        assert await asyncio.wait_for(told, 10) == "hello"
        with pytest.raises(asyncio.TimeoutError):
            await sender.execute("SELECT pg_sleep(30)", timeout=0.1)
        assert await sender.fetchval("SELECT 5") == 5
        task = asyncio.create_task(sender.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await listener.close()
        await sender.close()

    run(main())
