"""psycopg on the loop, which watches libpq's descriptors, against a real PostgreSQL."""

import asyncio

import pytest

psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def dsn(postgresql) -> str:
    return f"host=127.0.0.1 port={postgresql} user=bolide dbname=postgres"


def test_queries_copies_and_pipelines(run, dsn):
    async def main():
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("CREATE TEMP TABLE parcels (number INT, name TEXT)")
            async with connection.cursor().copy("COPY parcels FROM STDIN") as copy:
                for number in range(3000):
                    await copy.write_row((number, "x" * (number % 500)))
            async with connection.cursor().copy("COPY parcels TO STDOUT") as copy:
                assert len([row async for row in copy.rows()]) == 3000
            async with connection.pipeline():
                cursors = [await connection.execute("SELECT %s::int", (number,)) for number in range(100)]
                assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(100))

    run(main())


def test_notifications_and_cancellation(run, dsn):
    async def main():
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("LISTEN parcels")
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
                await other.execute("NOTIFY parcels, 'sent'")
            async for notification in connection.notifies(timeout=20, stop_after=1):
                assert notification.payload == "sent"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.execute("SELECT pg_sleep(100)"), 0.1)
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)

    run(main())


def test_a_pool(run, dsn):
    psycopg_pool = pytest.importorskip("psycopg_pool")

    async def main():
        async with psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=4, open=False) as pool:

            async def ask(number):
                async with pool.connection() as connection:
                    return (await (await connection.execute("SELECT %s::int", (number,))).fetchone())[0]

            assert await asyncio.gather(*map(ask, range(100))) == list(range(100))

    run(main())


def test_nobody_listens(run):
    async def main():
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect("host=127.0.0.1 port=1 connect_timeout=20")

    run(main())
