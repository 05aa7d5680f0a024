"""Texts as words."""

import pytest

from lecture4.data.text.tokens import tokenize


@pytest.mark.parametrize(
    ('text', 'style', 'expected'),
    [
        ("it's so laddish , they'll", 'kim', "it 's so laddish , they 'll"),
        ("Don't (re-)imagine!What?", 'kim', "do n't ( re ) imagine ! what ?"),
        ('What is the ABC 9.5% `x`', 'kim_cased', 'What is the ABC 9 5 `x`'),
        ("um , no. it's(x)", 'kim_tokenized', "um , no it's(x)"),
        ("we'd I've you're café", 'kim', "we 'd i 've you 're caf"),
        (' .:;- ', 'kim', ''),
    ],
)
def test_words_of_english_text(text, style, expected):
    assert tokenize(text, style) == tuple(expected.split())


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="got 'bert'"):
        tokenize('a', 'bert')
