"""aiofiles on the loop: files in its executor."""

import asyncio

import pytest

aiofiles = pytest.importorskip("aiofiles")


def test_files(run, tmp_path):
    async def main():
        async def write_and_read(number):
            path = tmp_path / str(number)
            async with aiofiles.open(path, "w") as file:
                await file.writelines(f"{number} {line}\n" for line in range(100))
            async with aiofiles.open(path) as file:
                return [line async for line in file]

        results = await asyncio.gather(*map(write_and_read, range(30)))
        for number, lines in enumerate(results):
            assert lines == [f"{number} {line}\n" for line in range(100)]
        async with aiofiles.tempfile.TemporaryDirectory() as folder:
            await aiofiles.os.rename(tmp_path / "1", f"{folder}/moved")
            assert await aiofiles.os.listdir(folder) == ["moved"]
        with pytest.raises(FileNotFoundError):
            await aiofiles.open(tmp_path / "nowhere")

    import aiofiles.os
    import aiofiles.tempfile

    run(main())
