"""aiosqlite on the loop: a thread that answers through call_soon_threadsafe()."""

import asyncio

import pytest

aiosqlite = pytest.importorskip("aiosqlite")


def test_queries(run, tmp_path):
    async def main():
        async with aiosqlite.connect(tmp_path / "database") as database:
            await database.execute("CREATE TABLE parcels (name TEXT UNIQUE, weight INTEGER)")
            rows = [(f"parcel {number}", number) for number in range(1000)]
            await database.executemany("INSERT INTO parcels VALUES (?, ?)", rows)
            await database.commit()

            async def weight(number):
                async with database.execute(
                    "SELECT weight FROM parcels WHERE name = ?", (f"parcel {number}",)
                ) as found:
                    return (await found.fetchone())[0]

            assert await asyncio.gather(*map(weight, range(300))) == list(range(300))
            async with database.execute("SELECT weight FROM parcels ORDER BY weight") as cursor:
                assert [row[0] async for row in cursor] == list(range(1000))
            with pytest.raises(aiosqlite.IntegrityError):
                await database.execute("INSERT INTO parcels VALUES ('parcel 1', 1)")

    run(main())
