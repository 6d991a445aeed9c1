"""Import strings."""

import os.path

import pytest

from bolide.importer import ImportFromStringError, import_from_string


def test_finds_attributes_and_their_attributes():
    assert import_from_string("os.path:join") is os.path.join
    assert import_from_string("os:path.join") is os.path.join


def test_an_object_is_returned_as_it_is():
    assert import_from_string(os) is os


@pytest.mark.parametrize("text", ["os", "os:", ":path", ":", ""])
def test_the_form_is_checked(text):
    with pytest.raises(ImportFromStringError, match="is not of the form"):
        import_from_string(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("main.py", "main:app"),
        ("main.py:make", "main:make"),
        ("./main.py:app", "main:app"),
        ("folder/main.py:app", "folder.main:app"),
    ],
)
def test_a_file_in_place_of_a_module(text, meant):
    with pytest.raises(ImportFromStringError, match=f'Did you mean "{meant}"'):
        import_from_string(text)


@pytest.mark.parametrize("text", ["./main:app", ".main:app", "folder/main:app"])
def test_what_is_no_name_of_a_module(text):
    with pytest.raises(ImportFromStringError, match="is not the name of a module"):
        import_from_string(text)


def test_a_missing_module_inside_the_module_is_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "imports_missing.py").write_text("import surely_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_missing"):
        import_from_string("imports_missing:app")
