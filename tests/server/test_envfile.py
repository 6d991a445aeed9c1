"""Files of environment variables."""

import pytest

from bolide.envfile import parse_env


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A = 1 ", "1"),
        ("export A=1", "1"),
        ("A=", ""),
        ("A=a b # comment", "a b"),
        ("A=a#b", "a#b"),
        ("A=# comment", ""),
        ("A='a # b' # c", "a # b"),
        (r"A='it\'s'", "it's"),
        (r"A='\n'", r"\n"),
        (r'A="x\ny\t\"q\""', 'x\ny\t"q"'),
        ('A="two\nlines"', "two\nlines"),
        ("A=${SET}", "set"),
        ("A=${MISSING}", ""),
        ("A=${MISSING:-default}", "default"),
        ('A="${SET}!"', "set!"),
        ("A='${SET}'", "${SET}"),
        ("B=b\nA=${B}", "b"),
        ("A=1\nA=2", "2"),
        ("# A=0\nnonsense\nA=1", "1"),
        ("A=$SET", "$SET"),
        ("A=https://user:p=w@host/", "https://user:p=w@host/"),
    ],
)
def test_values(line, value):
    assert parse_env(line, {"SET": "set"})["A"] == value


def test_what_is_no_assignment_is_skipped():
    assert parse_env("# comment\n\n  \nA B=1\n=2\n1A=3\n", {}) == {}
