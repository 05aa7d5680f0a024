"""Progress of a report's loop is displayed and does not change the loop."""

import pytest

from lecture4.train import progress
from tests.train import toy


@pytest.mark.parametrize(
    ('style', 'interval', 'expected'),
    [
        ('plain', 0.0, ['images 1/3', 'images 2/3', 'images 3/3']),
        ('plain', 20.0, []),
        ('none', 0.0, []),
    ],
)
def test_plain_lines_are_an_interval_apart(style, interval, expected, monkeypatch, capsys):
    monkeypatch.setattr(progress, 'PLAIN_INTERVAL', interval)
    config = toy.Config(progress=style)
    assert list(progress.track(config, range(5, 8), 'images')) == [5, 6, 7]
    lines = capsys.readouterr().err.splitlines()
    assert [line[: len('images 1/3')] for line in lines] == expected


def test_a_bar_ends_full(capsys):
    config = toy.Config(progress='bar')
    assert list(progress.track(config, 'abc', 'images')) == ['a', 'b', 'c']
    assert '3/3' in capsys.readouterr().err
