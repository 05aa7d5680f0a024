"""A text classification set that every installation has: SciPy's docstrings, labeled by their subpackage.

The sources are parsed, never imported. A text is the part of the docstring of a public function or class before its
first section (Parameters, Returns, ...). The names of SciPy's modules are removed, since they would reveal the label;
exact repetitions are dropped. A text is in the test split by a hash of its words, independent of SciPy's version.
"""

import ast
import collections
import functools
import hashlib
import importlib.util
import pathlib
import re
from typing import Literal

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.text.dataset import Sentences
from lecture4.data.text.tokens import tokenize

SUBPACKAGES = (
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
MIN_WORDS = 4  # shorter texts carry no information
_SECTION = re.compile(r'\n[ \t]*[A-Z][A-Za-z ]*\n[ \t]*-{3,}')
_OWN_NAME = re.compile(rf'scipy(\.\w+)+|:mod:`[^`]*`|\b({"|".join(SUBPACKAGES)})\.\w+')


def load(split: Literal['train', 'test']) -> Sentences:
    """The sentences of a split; a fifth is in 'test'.

    Raises:
      DataError: SciPy is not installed.
    """
    labels = _labeled_texts()
    in_test = {
        words: int(hashlib.sha256(' '.join(words).encode()).hexdigest(), 16) % 5 == 0
        for words in labels
    }
    texts = tuple(words for words, test in in_test.items() if test == (split == 'test'))
    return Sentences(texts, np.asarray([labels[words] for words in texts], np.int32), SUBPACKAGES)


@functools.cache
def _labeled_texts():
    spec = importlib.util.find_spec('scipy')
    if spec is None or not spec.submodule_search_locations:
        raise DataError('docstrings are read from SciPy, which is not installed; install lecture4')
    root = pathlib.Path(spec.submodule_search_locations[0])
    labels = {}
    for label, subpackage in enumerate(SUBPACKAGES):
        for path in sorted((root / subpackage).rglob('*.py')):
            if 'tests' not in path.parts and not path.name.startswith(('test', 'setup')):
                for words in _texts(path):
                    labels.setdefault(words, label)
    return labels


def _texts(path):
    for node in _statements(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_'):
            summary = _SECTION.split(ast.get_docstring(node) or '')[0]
            words = tokenize(_OWN_NAME.sub(' ', summary), 'kim')
            if len(words) >= MIN_WORDS:
                yield words


def _statements(module):
    """All statements in the order of `ast.walk`, which would also visit every expression."""
    nodes = collections.deque([module])
    while nodes:
        node = nodes.popleft()
        for field in ('body', 'handlers', 'orelse', 'finalbody', 'cases'):
            nodes.extend(getattr(node, field, ()))
        yield node
