"""SQLAlchemy's asyncio face on the loop: over asyncpg against a real PostgreSQL, and over aiosqlite."""

import asyncio

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("greenlet")
from sqlalchemy import String, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Parcel(Base):
    __tablename__ = "orm_parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


async def work(url, at_once):
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        session.add_all(Parcel(name=f"parcel {number}") for number in range(100))
    with pytest.raises(IntegrityError):
        async with sessions.begin() as session:
            session.add(Parcel(name="parcel 5"))

    async def find(number):
        async with sessions() as session:
            return await session.scalar(select(Parcel.name).where(Parcel.name == f"parcel {number}"))

    for start in range(0, 100, at_once):
        numbers = range(start, start + at_once)
        assert await asyncio.gather(*map(find, numbers)) == [f"parcel {number}" for number in numbers]
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(Parcel)) == 100
        streamed = await connection.stream(select(Parcel.name))
        assert len([row async for row in streamed]) == 100
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


def test_postgresql(run, postgresql):
    pytest.importorskip("asyncpg")
    run(work(f"postgresql+asyncpg://bolide@127.0.0.1:{postgresql}/postgres", 20))


def test_sqlite(run, tmp_path):
    pytest.importorskip("aiosqlite")
    run(work(f"sqlite+aiosqlite:///{tmp_path}/database", 5))
