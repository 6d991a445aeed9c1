"""Starts servers as users do: by the command, in a process of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from support.command import APP, DEADLINE, Command, running, write_file


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(name, text): make a file in the folder that commands run in."""
    return lambda name, text=APP: write_file(tmp_path / name, text)


@pytest.fixture
def bolide(tmp_path: Path, write: Callable[..., Path]) -> Iterator[Callable[..., Command]]:
    """bolide(*arguments, env={}): start the command in a folder that holds main.py with a plain application, `app`."""
    write("main.py")
    with running(tmp_path) as start:
        yield start


@pytest.fixture
def serve(bolide: Callable[..., Command]) -> Callable[..., tuple[Command, str]]:
    """serve(*arguments): start the command on a free port and wait until it accepts; (command, address)."""

    def start(*arguments: str, **options: object) -> tuple[Command, str]:
        command = bolide(*arguments, "--port", "0", **options)
        return command, command.wait_ready()

    return start


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, verify=False, timeout=DEADLINE) as made:
        yield made
