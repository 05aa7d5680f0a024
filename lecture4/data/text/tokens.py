"""Texts as tuples of words."""

import re
from typing import Literal

Style = Literal['kim', 'kim_cased', 'kim_tokenized']

_DROPPED = re.compile(r"[^A-Za-z0-9(),!?'`]")
_ENDING = re.compile(r"(n't|'(?:s|ve|re|d|ll))")
_MARK = re.compile(r'([,!()?])')


def tokenize(text: str, style: Style | str = 'kim') -> tuple[str, ...]:
    """The words of a text, as in Kim's published code.

    ASCII letters, digits and the marks ( ) , ! ? ' ` are kept; everything else separates words.

    Args:
      text: Any text.
      style: 'kim' splits the endings n't 's 've 're 'd 'll and the marks off their words and lowers
        capitals; 'kim_cased' keeps capitals (TREC); 'kim_tokenized' splits nothing off, for text that
        is tokenized already (the Stanford treebank).

    Raises:
      ValueError: Another style.

    References:
      Kim 2014, his published preprocessing.
    """
    if style not in ('kim', 'kim_cased', 'kim_tokenized'):
        raise ValueError(f"expected style 'kim', 'kim_cased' or 'kim_tokenized', got {style!r}")
    text = _DROPPED.sub(' ', text)
    if style != 'kim_tokenized':
        text = _MARK.sub(r' \1 ', _ENDING.sub(r' \1', text))
    return tuple((text if style == 'kim_cased' else text.lower()).split())
