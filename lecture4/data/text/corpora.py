"""A text classification set that every installation has: SciPy's docstrings, labelled by the part they stand in.

The sources are parsed, never imported. A text is what a public function or class says before its first section
(Parameters, Returns, ...). The names of SciPy's own modules are taken out of it, since they are the answer; exact
repetitions are dropped. A text is in the test split by a hash of its words, whatever SciPy's version.
"""

import ast
import functools
import hashlib
import importlib.util
import pathlib
import re

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.text import sentences

PARTS = (
    'integrate',
    'interpolate',
    'linalg',
    'ndimage',
    'optimize',
    'signal',
    'sparse',
    'spatial',
    'special',
    'stats',
)
LEAST = 4  # words: shorter ones say nothing
_SECTION = re.compile(r'\n[ \t]*[A-Z][A-Za-z ]*\n[ \t]*-{3,}')
_OWN_NAME = re.compile(rf'scipy(\.\w+)+|:mod:`[^`]*`|\b({"|".join(PARTS)})\.\w+')


@functools.cache
def _all():
    found = importlib.util.find_spec('scipy')
    if found is None or not found.submodule_search_locations:
        raise DataError('docstrings are read from SciPy, which is not installed; install lecture4')
    root = pathlib.Path(found.submodule_search_locations[0])
    labels = {}
    for label, part in enumerate(PARTS):
        for path in sorted((root / part).rglob('*.py')):
            if 'tests' not in path.parts and not path.name.startswith(('test', 'setup')):
                for said in _said(path):
                    labels.setdefault(said, label)
    return labels


def _said(path):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_'):
            told = _SECTION.split(ast.get_docstring(node) or '')[0]
            words = sentences.tokens(_OWN_NAME.sub(' ', told))
            if len(words) >= LEAST:
                yield words


def load(split: str) -> 'sentences.Sentences':
    """The sentences of a split, 'train' or 'test' (a fifth)."""
    held_out = {
        words: int(hashlib.sha256(' '.join(words).encode()).hexdigest(), 16) % 5 == 0
        for words in _all()
    }
    rows = [words for words, held in held_out.items() if held == (split == 'test')]
    return sentences.Sentences(
        tuple(rows), np.asarray([_all()[words] for words in rows], np.int32), PARTS
    )
