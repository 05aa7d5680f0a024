"""Labelled sentences: `load('mr')`, `load('docstrings')`, `load('tsv:PATH')`, ...

    docstrings  what each public function and class of SciPy says of itself, in a sentence or a few; the label is the
                part of SciPy that it stands in. Read from the installed sources: needs no file, and differs with
                SciPy's version. Splits train, test
    mr          10,662 sentences of film reviews, negative or positive (Pang & Lee 2005); split all
    subj        10,000 subjective or objective sentences (Pang & Lee 2004); split all
    cr          3,775 sentences of customers' reviews (Hu & Liu 2004); split all
    mpqa        10,606 phrases of opinion (Wiebe et al. 2005); split all
    sst1, sst2  the Stanford treebank's sentences, five grades or two (Socher et al. 2013); splits train, dev, test.
                Whole sentences only: published systems train on the treebank's phrases as well
    trec        questions, six kinds of answer (Li & Roth 2002); splits train, test
    sms_spam    5,574 short messages, ham or spam (Almeida et al. 2011); split all
    tsv:PATH    lines of label, tab, text in UTF-8: one file (split all), or a folder with train.tsv, test.tsv and
                perhaps dev.tsv

Files are looked for in manual_dir and its folders sentence_classification and sms_spam, and but for sms_spam can be
downloaded. They are accepted when their sha256 is the pinned one.
"""

import difflib
import os
import pathlib
import re
import shutil
import urllib.request
from typing import NamedTuple

import numpy as np

from lecture4.data.dataset import DataError
from lecture4.data.sources import archives

POLARITY = ('negative', 'positive')
SPAM = archives.Pin(
    'SMSSpamCollection',
    '',
    477_907,
    '7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d',
)


class Sentences(NamedTuple):
    """Sentences as tuples of words, one label each, and the classes' names.

    texts   n tuples of words; () where a text holds no letter, digit or mark that is kept.
    labels  int32 [n], values in 0..len(names)-1.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    names: tuple[str, ...]


class _Set(NamedTuple):
    files: dict[str, str]
    names: tuple[str, ...]
    encoding: str = 'latin-1'
    separator: str = ' '
    style: str = 'kim'


_SETS = {
    'mr': _Set({'all': 'rt-polarity.all'}, POLARITY),
    'subj': _Set({'all': 'subj.all'}, ('subjective', 'objective')),
    'cr': _Set({'all': 'custrev.all'}, POLARITY),
    'mpqa': _Set({'all': 'mpqa.all'}, POLARITY),
    'sst1': _Set(
        {split: f'stsa.fine.{split}' for split in ('train', 'dev', 'test')},
        ('very negative', 'negative', 'neutral', 'positive', 'very positive'),
        'utf-8',
        style='sst',
    ),
    'sst2': _Set(
        {split: f'stsa.binary.{split}' for split in ('train', 'dev', 'test')},
        POLARITY,
        'utf-8',
        style='sst',
    ),
    'trec': _Set(
        {split: f'TREC.{split}.all' for split in ('train', 'test')},
        ('description', 'entity', 'abbreviation', 'human', 'location', 'number'),
        style='cased',
    ),
    'sms_spam': _Set({'all': 'SMSSpamCollection'}, ('ham', 'spam'), 'utf-8', '\t'),
}

_DROPPED = re.compile(r"[^A-Za-z0-9(),!?'`]")
_ENDING = re.compile(r"(n't|'(?:s|ve|re|d|ll))")
_MARK = re.compile(r'([,!()?])')


def tokens(text: str, style: str = 'kim') -> tuple[str, ...]:
    """The words of a text, as Kim's code cuts it.

    Letters, digits and the marks ( ) , ! ? ' ` are kept, all else divides words. 'kim' parts the endings n't 's 've
    're 'd 'll and the marks from their words; 'cased' does so and keeps capitals (TREC); 'sst' parts nothing, for
    text that is divided already.

    Errors  ValueError for another style.
    Source  Kim 2014, his published preprocessing.
    """
    if style not in ('kim', 'cased', 'sst'):
        raise ValueError(f"style is 'kim', 'cased' or 'sst', not {style!r}")
    text = _DROPPED.sub(' ', text)
    if style != 'sst':
        text = _MARK.sub(r' \1 ', _ENDING.sub(r' \1', text))
    return tuple((text if style == 'cased' else text.lower()).split())


def splits(source: str) -> tuple[str, ...]:
    """The splits that a source has: ('all',), ('train', 'test') or ('train', 'dev', 'test').

    Errors  DataError for an unknown source or a path that holds none.
    """
    if source.startswith('tsv:') and source != 'tsv:':
        path = pathlib.Path(source[4:]).expanduser()
        if path.is_file():
            return ('all',)
        found = tuple(name for name in ('train', 'dev', 'test') if (path / f'{name}.tsv').is_file())
        if not {'train', 'test'} <= set(found):
            raise DataError(
                f'{path} is neither a file nor a folder with train.tsv and test.tsv; name one that is'
            )
        return found
    if source == 'docstrings':
        return ('train', 'test')
    if source not in _SETS:
        names = ['docstrings', *_SETS]
        near = difflib.get_close_matches(source, names, 1)
        hint = f'did you mean {near[0]}? ' if near else ''
        if source and pathlib.Path(source).expanduser().exists():
            hint = f'did you mean tsv:{source}? '
        raise DataError(
            f'unknown set of sentences {source!r}; {hint}there are {", ".join(names)}, tsv:PATH'
        )
    return tuple(_SETS[source].files)


def load(
    source: str, split: str, *, data_dir=None, manual_dir=None, download: bool = False
) -> Sentences:
    """The split of a set of sentences, in the order of its file.

    source      a name of the table above, or tsv:PATH.
    data_dir    where downloads are kept: else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    manual_dir  a folder of files fetched by hand, only ever read: else $LECTURE4_MANUAL_DIR.
    download    whether a file that is not there may be fetched.
    Errors      DataError: an unknown source or split, a file that is missing (says what to run), altered, or has a
                line without a label, without text or with a label out of range (named by its number).
    """
    known = splits(source)
    if split not in known:
        raise DataError(f'{source} has no split {split!r}; it has {", ".join(known)}')
    if source == 'docstrings':
        from lecture4.data.text import corpora

        return corpora.load(split)
    if source.startswith('tsv:'):
        path = pathlib.Path(source[4:]).expanduser()
        names = None
        if path.is_dir():  # the classes are those of the training split
            names = _read_tsv(path / 'train.tsv', None).names
            path = path / f'{split}.tsv'
        return _read_tsv(path, names)
    wanted = _SETS[source]
    path = _obtain(source, wanted.files[split], data_dir, manual_dir, download)
    numbers = {str(i): i for i in range(len(wanted.names))}
    if source == 'sms_spam':
        numbers = {name: i for i, name in enumerate(wanted.names)}
    return _read(path, wanted, numbers)


def _read_tsv(path, names):
    tab = _Set({}, (), 'utf-8', '\t')
    if names is None:
        labels = sorted({label for _, label, _ in _lines(path, tab)})
        names = tuple(labels)
    return _read(path, tab._replace(names=names), {name: i for i, name in enumerate(names)})


def _read(path, wanted: _Set, numbers: dict[str, int]) -> Sentences:
    texts, labels = [], []
    for number, label, text in _lines(path, wanted):
        if label not in numbers:
            raise DataError(
                f'{path}, line {number}: label {label!r} is none of {", ".join(numbers)}; mend the line'
            )
        labels.append(numbers[label])
        texts.append(tokens(text, wanted.style))
    if not texts:
        raise DataError(f'{path} holds no sentence; name a file that has some')
    return Sentences(tuple(texts), np.asarray(labels, np.int32), wanted.names)


def _lines(path, wanted: _Set):
    """Number, label and text of each line; only a newline ends a line, the sets hold other separators."""
    try:
        content = pathlib.Path(path).read_bytes().decode(wanted.encoding)
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not {wanted.encoding} text ({error}); convert it') from error
    lines = content.split('\n')
    if lines[-1] == '':
        lines.pop()
    form = 'label, tab, text' if wanted.separator == '\t' else 'label, space, text'
    for number, line in enumerate(lines, 1):
        label, separator, text = line.partition(wanted.separator)
        if not separator or not label.strip():
            raise DataError(f'{path}, line {number}: {line[:60]!r} is not {form}; mend the line')
        if not text.strip():
            raise DataError(f'{path}, line {number}: the sentence is empty; remove the line')
        yield number, label.strip(), text


def _obtain(source, file, data_dir, manual_dir, download) -> pathlib.Path:
    """Path of a file whose sum is the pinned one."""
    folder = 'sms_spam' if source == 'sms_spam' else 'sentence_classification'
    pins = [SPAM]
    if source != 'sms_spam':
        below = pathlib.Path(__file__).parent.parent / 'sources' / 'builders' / folder
        pins = archives.read_pins(below / 'checksums.tsv')
    (pin,) = (pin for pin in pins if pin.file == file)
    manual_dir = manual_dir or os.environ.get('LECTURE4_MANUAL_DIR') or None
    kept = pathlib.Path(data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')
    kept = kept.expanduser() / folder
    path = archives.locate(manual_dir, folder, [file]).get(file, kept / file)
    if not path.is_file():
        by_hand = f'--manual_dir PATH where PATH or PATH/{folder} holds {file}'
        if not pin.url:
            raise DataError(
                f'{source} cannot be downloaded: take {file} ({pin.size} bytes) out of the SMS Spam Collection v.1 '
                f'of the UCI Machine Learning Repository, then run with {by_hand}'
            )
        if not download:
            raise DataError(
                f'{source} is not in {kept}; run again with --download, or with {by_hand}'
            )
        _fetch(pin, path)
    archives.verify(path, pin)
    return path


def _fetch(pin: archives.Pin, path: pathlib.Path):
    """Download to a name beside the path and rename: a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    try:
        with urllib.request.urlopen(pin.url, timeout=60) as answer, part.open('wb') as file:
            shutil.copyfileobj(answer, file)
        archives.verify(part, pin)
        os.replace(part, path)
    except OSError as error:
        raise DataError(
            f'{pin.url} cannot be fetched ({error}); check the network, or fetch it by hand and name its folder '
            'with --manual_dir'
        ) from error
    finally:
        part.unlink(missing_ok=True)
