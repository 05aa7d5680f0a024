"""Labeled sentences: `load('mr')`, `load('docstrings')`, `load('tsv:PATH')`, ...

    docstrings  the first sentences of the docstrings of SciPy's public functions and classes; the label
                is the subpackage. Read from the installed sources: needs no file, and differs with
                SciPy's version. Splits train, test
    mr          10,662 sentences of film reviews, negative or positive (Pang & Lee 2005); split all
    subj        10,000 subjective or objective sentences (Pang & Lee 2004); split all
    cr          3,775 sentences of customers' reviews (Hu & Liu 2004); split all
    mpqa        10,606 phrases of opinion (Wiebe et al. 2005); split all
    sst1, sst2  the Stanford treebank's sentences, five grades or two (Socher et al. 2013); splits train,
                dev, test. Sentences only: published systems train on the treebank's phrases as well
    trec        questions, six kinds of answer (Li & Roth 2002); splits train, test
    sms_spam    5,574 short messages, ham or spam (Almeida et al. 2011); split all
    tsv:PATH    lines of label, tab, text in UTF-8: one file (split all), or a folder with train.tsv,
                test.tsv and optionally dev.tsv; see `lecture4.data.text.lines.read_tsv`

Words are those of Kim's ASCII cleaning in the sets of his paper, sms_spam and docstrings, and Unicode's in
tsv:PATH; see `lecture4.data.text.tokens.tokenize`.

Files are read from manual_dir and its folders sentence_classification and sms_spam; all except sms_spam can be
downloaded. They are accepted if their sha256 is the pinned one.
"""

import difflib
import pathlib
from os import PathLike

from lecture4.data.dataset import DataError
from lecture4.data.text import docstrings, lines, published
from lecture4.data.text.dataset import Sentences
from lecture4.data.text.tokens import Style


def splits(source: str) -> tuple[str, ...]:
    """The splits of a source: ('all',), ('train', 'test') or ('train', 'dev', 'test').

    Raises:
      DataError: The source is unknown, or the path has no splits.
    """
    if source.startswith('tsv:') and source != 'tsv:':
        path = pathlib.Path(source[4:]).expanduser()
        if path.is_file():
            return ('all',)
        names = tuple(name for name in ('train', 'dev', 'test') if (path / f'{name}.tsv').is_file())
        if not {'train', 'test'} <= set(names):
            raise DataError(
                f'{path} is neither a file nor a folder with train.tsv and test.tsv; name one that is'
            )
        return names
    if source == 'docstrings':
        return ('train', 'test')
    if source not in published.SETS:
        names = ['docstrings', *published.SETS]
        near = difflib.get_close_matches(source, names, 1)
        hint = f'did you mean {near[0]}? ' if near else ''
        if source and pathlib.Path(source).expanduser().exists():
            hint = f'did you mean tsv:{source}? '
        raise DataError(
            f'unknown set of sentences {source!r}; {hint}available are {", ".join(names)}, tsv:PATH'
        )
    return tuple(published.SETS[source].files)


def load(
    source: str,
    split: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    manual_dir: str | PathLike[str] | None = None,
    download: bool = False,
    style: Style | None = None,
) -> Sentences:
    """The split of a set of sentences, in the order of its file.

    Args:
      source: A name of the table above, or tsv:PATH.
      split: One of `splits(source)`.
      data_dir: Directory of downloads; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      manual_dir: Directory of downloaded files, only read; by default $LECTURE4_MANUAL_DIR.
      download: Whether a missing file may be downloaded.
      style: Style of tokenization, see `tokenize`; None takes that of the set (the only one for docstrings).

    Raises:
      DataError: The source or split is unknown, or a file is missing (the message says what to run), altered, has a
        line without a label, without text or with an unknown label (the message has its number), or more than a tenth
        of its sentences have no word.
    """
    known = splits(source)
    if split not in known:
        raise DataError(f'{source} has no split {split!r}; it has {", ".join(known)}')
    if source == 'docstrings':
        return docstrings.load('test' if split == 'test' else 'train')
    if source.startswith('tsv:'):
        path, style = pathlib.Path(source[4:]).expanduser(), style or 'unicode'
        if path.is_file():
            return lines.read_tsv(path, style=style)
        train = lines.read_tsv(
            path / 'train.tsv', style=style
        )  # the classes of this split are those of all
        if split == 'train':
            return train
        return lines.read_tsv(path / f'{split}.tsv', train.class_names, style)
    return published.load(source, split, data_dir, manual_dir, download, style)
