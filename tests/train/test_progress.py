"""How far a loop of a report has come is shown, and changes nothing of the loop."""

import pytest

from lecture4.train import progress
from tests.train import toy


@pytest.mark.parametrize(
    ('style', 'seldom', 'lines'),
    [
        ('plain', 0.0, ['views 1/3', 'views 2/3', 'views 3/3']),
        ('plain', 20.0, []),
        ('none', 0.0, []),
    ],
)
def test_lines_come_with_the_items_but_seldom(style, seldom, lines, monkeypatch, capsys):
    monkeypatch.setattr(progress, 'PLAIN_INTERVAL', seldom)
    config = toy.Config(progress=style)
    assert list(progress.track(config, range(5, 8), 'views')) == [5, 6, 7]
    told = capsys.readouterr().err.splitlines()
    assert [line[: len('views 1/3')] for line in told] == lines


def test_a_bar_ends_full(capsys):
    config = toy.Config(progress='bar')
    assert list(progress.track(config, 'abc', 'views')) == ['a', 'b', 'c']
    assert '3/3' in capsys.readouterr().err
