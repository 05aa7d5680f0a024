"""Texts as tuples of words."""

import re
import unicodedata
from typing import Literal

Style = Literal['unicode', 'kim', 'kim_cased', 'kim_tokenized']

# Marks that are words of their own: those that Kim keeps; of full width; and Spanish and Arabic ones.
_MARKS = '(),!?\uff08\uff09\uff0c\uff01\uff1f\u3001\xbf\xa1\u060c\u061f'
_APOSTROPHES = "'\u2019\u02bc\uff07"
# Inside words, without meaning of their own: soft hyphen, joiners, byte order mark, variation selectors.
_INVISIBLE = '\u00ad\u200c\u200d\u2060\ufeff' + ''.join(map(chr, range(0xFE00, 0xFE10)))
_ENDING = re.compile(r"(n't|'(?:s|ve|re|d|ll))(?![^\W_])")

_KIM_DROPPED = re.compile(r"[^A-Za-z0-9(),!?'`]")
_KIM_ENDING = re.compile(r"(n't|'(?:s|ve|re|d|ll))")
_KIM_MARK = re.compile(r'([,!()?])')


def tokenize(text: str, style: Style | str = 'unicode') -> tuple[str, ...]:
    """The words of a text.

    Text without spaces between words (Chinese, Japanese, Thai) has to be segmented first.

    Args:
      text: Any text.
      style: 'unicode' keeps letters, accents and digits of all scripts, marks such as ( ) , ! ? and
        symbols such as emoji as separate words, and apostrophes; everything else separates words.
        The endings n't 's 've 're 'd 'll are split off, capitals are lowered, accents composed (NFC). 'kim' does the
        same for ASCII like Kim's published code, which drops all other letters; 'kim_cased' keeps capitals (TREC);
        'kim_tokenized' splits nothing off, for text that is already tokenized (the Stanford treebank).

    Raises:
          ValueError: The style is unknown.

    References:
      Kim 2014, his published preprocessing.
    """
    if style == 'unicode':
        text = unicodedata.normalize('NFC', text).translate(_TABLE)
        return tuple(_ENDING.sub(r' \1', text).lower().split())
    if style not in ('kim', 'kim_cased', 'kim_tokenized'):
        raise ValueError(
            f"expected style 'unicode', 'kim', 'kim_cased' or 'kim_tokenized', got {style!r}"
        )
    text = _KIM_DROPPED.sub(' ', text)
    if style != 'kim_tokenized':
        text = _KIM_MARK.sub(r' \1 ', _KIM_ENDING.sub(r' \1', text))
    return tuple((text if style == 'kim_cased' else text.lower()).split())


class _Table(dict):
    """Replacement of each character in the style 'unicode', for str.translate."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in _INVISIBLE:
            self[code] = ''
        elif character in _APOSTROPHES:
            self[code] = "'"
        elif character in _MARKS or category == 'So':
            self[code] = f' {character} '
        elif character == '`' or category[0] in 'LMN':
            self[code] = character
        else:
            self[code] = ' '
        return self[code]


_TABLE = _Table()
