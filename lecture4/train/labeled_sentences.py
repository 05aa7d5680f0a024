"""Labeled sentences for a network: options shared by experiments, and a cross-validation as the data of one run."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Shaped

from lecture4.data.text import corpus, cross_validation
from lecture4.train.config import Config, require
from lecture4.train.fields import AtLeast0, AtLeast1, AtLeast2, InsideUnit
from lecture4.train.task import Data, Spec

TableFn = Callable[
    [Mapping[str, int], int], tuple[Shaped[np.ndarray, 'v d'], Bool[np.ndarray, ' v']]
]


@dataclasses.dataclass(frozen=True)
class LabeledSentences(Config):
    """Sentences with labels, cross-validated where the set has no test split."""

    # Number of sentences per step, over all devices.
    batch_size: AtLeast1 = 50
    # Source of labeled sentences: docstrings, mr, subj, cr, mpqa, sst1, sst2, trec, sms_spam, tsv:PATH.
    source: str = 'docstrings'
    # Number of epochs per fold.
    epochs: AtLeast1 = 10
    # Number of folds of a set without a test split.
    num_folds: AtLeast2 = 10
    # Fraction of a fold's training sentences held out for development, where the set has no such split.
    dev_fraction: InsideUnit = 0.1
    # Vocabulary: the words of the fold's training sentences, or of all sentences.
    vocabulary: Literal['train', 'all'] = 'train'
    # Number of words at which sentences are truncated; 0 keeps all.
    max_length: AtLeast0 = 64

    def __post_init__(self):
        super().__post_init__()
        require(self, 'steps_per_call', self.steps_per_call == 1, '1: batches differ in length')


def cross_validate(config: LabeledSentences, table_fn: TableFn) -> Data:
    """A cross-validation, or one fold of a set with a test split, as the data of one run.

    Args:
      config: Config with the sentences and the numbers of folds and epochs; its steps are at most those of all folds.
      table_fn: (index of each word, number of rows) -> pretrained word vectors [rows, d], and which rows
        have one: words that every fold knows.

    Returns:
      Data with the batches of `data.text.cross_validation` and, in each, 'table' and 'given' of `table_fn`; the
      spec's class names and 'num_folds'; report_data {'corpus', 'cross_validation'}.

    Raises:
      ValueError: More steps than the folds have, as `corpus.load`, or as `table_fn`.
    """
    loaded = corpus.load(config.source, max_length=config.max_length, **config.data_kwargs())
    table, given = table_fn(loaded.vocabulary.word_index, len(loaded.vocabulary))
    folds = cross_validation.assign(
        loaded.encoded,
        loaded.rows,
        given,
        num_folds=config.num_folds,
        dev_fraction=config.dev_fraction,
        seed=config.seed,
        all_known=config.vocabulary == 'all',
    )
    cv = cross_validation.create(
        loaded.encoded,
        loaded.labels,
        folds,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    if config.steps > cv.num_steps:
        raise ValueError(
            f'--steps {config.steps}, but {len(folds)} folds of {config.epochs} epochs, each of '
            f'{cv.batches_per_epoch} batches and an evaluation, are {cv.num_steps} steps; use at most that '
            'many, or more --epochs'
        )
    return Data(
        cv.batch,
        device_arrays={'table': table, 'given': given},
        prepare=lambda arrays, batch, key: arrays | batch,
        spec=Spec(class_names=loaded.class_names, constants={'num_folds': len(folds)}),
        report_data={'corpus': loaded, 'cross_validation': cv},
    )
