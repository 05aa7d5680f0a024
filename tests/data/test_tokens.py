"""Texts as words."""
# ruff: noqa: RUF001

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ("It's so laddish, they'll say (no!)", "it 's so laddish , they 'll say ( no ! )"),
        ("l'été était génial", "l'été était génial"),
        ('Отличный фильм №2', 'отличный фильм № 2'),
        ('最高 の 映画！', '最高 の 映画 ！'),
        ('हिन्दी फ़िल्म', 'हिन्दी फ़िल्म'),  # vowel signs belong to their words
        ('نمی‌خواهم؟', 'نمیخواهم ؟'),  # a joiner does not separate
        ('don’t stop', "do n't stop"),
        ('love it ❤️👍🏽', 'love it ❤ 👍'),
        ('d’savoir', "d'savoir"),  # no English ending
        ('snake_case \ufeffx\u200by', 'snake case x y'),
        (' .:;- ', ''),
    ],
)
def test_words_of_many_scripts(text, expected):
    assert tokenize(text) == tuple(unicodedata.normalize('NFC', expected).split())


def test_composed_and_decomposed_accents_are_one_word():
    composed, decomposed = (unicodedata.normalize(form, 'Génial') for form in ('NFC', 'NFD'))
    assert composed != decomposed and tokenize(composed) == tokenize(decomposed) == ('génial',)


@given(st.text(string.ascii_letters + string.digits + string.punctuation + ' ' * 20))
def test_ascii_words_are_those_of_kim(text):
    text = re.sub(r"'(?=[a-z])", '', text.lower())  # endings inside a word are Kim's only
    assert tokenize(text) == tokenize(text, 'kim')
