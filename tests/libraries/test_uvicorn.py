"""uvicorn itself beside bolide: the same options and names, with the same defaults."""

import inspect
import os

import click
import pytest
from support.server import REPOSITORY

import bolide
from bolide import cli

uvicorn = pytest.importorskip("uvicorn")
command = pytest.importorskip("uvicorn.main").main

if not uvicorn.__version__.startswith("0.54."):
    pytest.skip(f"made for uvicorn 0.54, and this is {uvicorn.__version__}", allow_module_level=True)

THEIRS = [one for one in command.params if isinstance(one, click.Option) and one.name != "version"]
OURS = {option.flag: option for group in cli.OPTIONS.values() for option in group}
by_name = pytest.mark.parametrize("theirs", THEIRS, ids=lambda one: one.name)
# A value of each kind for the environment, in both spellings.
WORDS = {"integer": "7", "float": "1.5", "text": "a:b", "boolean": "false", "path": "/tmp"}


def flag_of(theirs):
    """The positive name."""
    return max(theirs.opts, key=len)


def test_all_are_there():
    assert len(THEIRS) > 45
    assert [flag_of(one) for one in THEIRS if flag_of(one) not in OURS] == []


@by_name
def test_same_default_and_same_kind(theirs):
    ours = OURS[flag_of(theirs)]
    default = theirs.get_default(click.Context(command), call=False)
    if theirs.name == "app_dir":
        return  # "" there, which is what the command makes of None here
    assert ours.default == (None if theirs.multiple else default)
    assert ours.many == theirs.multiple
    assert ours.negatable == bool(theirs.secondary_opts)
    assert (ours.convert is bool) == theirs.is_flag
    if isinstance(theirs.type, click.Choice):
        assert set(ours.choices) == set(theirs.type.choices)


@by_name
def test_same_environment_variable(theirs, monkeypatch):
    """What click makes of UVICORN_..., the command makes of BOLIDE_..."""
    ours = OURS[flag_of(theirs)]
    kind = theirs.type.name
    words = {"choice": getattr(theirs.type, "choices", [""])[-1], "bool": "false"}.get(kind) or WORDS[kind]
    if theirs.multiple:
        words += (os.pathsep if kind == "path" else " ") + words
    monkeypatch.setenv("UVICORN_" + theirs.name.upper(), words)
    monkeypatch.setenv("BOLIDE_" + theirs.name.upper(), words)
    expected = command.make_context("uvicorn", ["a:b"], auto_envvar_prefix="UVICORN").params[theirs.name]
    found = cli._from_environment(ours)
    if theirs.name == "headers":
        found = [":".join(pair) for pair in found]
    assert found == (list(expected) if theirs.multiple else expected)


def test_same_arguments_of_config_in_the_same_order():
    theirs = inspect.signature(uvicorn.Config).parameters
    ours = inspect.signature(bolide.Config).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {name: one.default for name, one in theirs.items() if name != "log_config"} == {
        name: ours[name].default for name in theirs if name != "log_config"
    }


def test_same_arguments_of_run():
    theirs = set(inspect.signature(uvicorn.run).parameters)
    assert theirs - {"app"} <= set(bolide.server.ServeOptions.__annotations__)


def test_same_methods():
    gone = {"Config": {"setup_event_loop"}, "Server": {"on_tick"}}  # the first raises an error there
    for name, without in gone.items():
        theirs = {one for one in dir(getattr(uvicorn, name)) if not one.startswith("_")}
        assert {one for one in theirs if not hasattr(getattr(bolide, name), one)} == without


def test_the_guide_to_migration_names_all():
    text = (REPOSITORY / "docs" / "migrating.md").read_text()
    names = [flag for one in THEIRS for flag in (*one.opts, *one.secondary_opts) if flag.startswith("--")]
    names += [name for one in (uvicorn.Config, uvicorn.Server) for name in dir(one) if not name.startswith("_")]
    assert [name for name in names if name not in text and name != "setup_event_loop"] == []


def test_what_the_package_exports():
    assert [name for name in uvicorn.__all__ if not hasattr(bolide, name)] == []
