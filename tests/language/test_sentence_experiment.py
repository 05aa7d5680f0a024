"""The experiment's options are checked, its sweep can be traced, and its number of steps is known."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.convnets import sentence_classification as experiment
from lecture4 import train
from lecture4.data.dataset import DataError
from lecture4.data.text import vocabulary
from lecture4.train.sweep import variants as sweep


@pytest.fixture
def source(tmp_path):
    """A small set in one piece: a pair of words decides the label."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(80):
        words = [f'w{j}' for j in rng.integers(0, 30, rng.integers(2, 20))]
        at = int(rng.integers(0, len(words)))
        words[at:at] = ['very', 'good'] if i % 2 else ['not', 'good']
        lines.append(f'{"yes" if i % 2 else "no"}\t{" ".join(words)}\n')
    (tmp_path / 'set.tsv').write_text(''.join(lines))
    return f'tsv:{tmp_path / "set.tsv"}'


def config(source, **fields):
    small = {
        'embedding_dim': 8,
        'num_filters': 4,
        'num_folds': 2,
        'epochs': 2,
        'batch_size': 10,
        'steps': 20,
    }
    return experiment.Config(source=source, **{**small, **fields})


def test_steps_cover_folds_epochs_batches_and_evaluations(source):
    cv = experiment.data(config(source)).report_data['cross_validation']
    assert (
        cv.batches_per_epoch == 4 and cv.num_steps == 2 * 2 * 5
    )  # 36 training sentences per fold, one evaluation per epoch
    with pytest.raises(
        ValueError, match=r'--steps 21, but 2 folds of 2 epochs, each of 4 .* are 20 steps'
    ):
        experiment.data(config(source, steps=21))


@pytest.mark.parametrize(
    ('fields', 'match'),
    [
        ({'dropout_rate': 1.0}, '--dropout_rate is 1.0; it has to be at least 0 and below 1'),
        ({'kernel_sizes': (0,)}, '--kernel_sizes'),
        ({'padding': -1}, '--padding'),
        ({'num_folds': 1}, '--num_folds'),
        ({'variant': 'static'}, '--vectors is ; expected a file of word vectors'),
        ({'vectors': 'file'}, '--vectors is file'),
        ({'steps_per_call': 2}, '--steps_per_call is 2; expected 1'),
        ({'max_norm': 0.0}, '--max_norm'),
        ({'max_length': -1}, '--max_length'),
    ],
)
def test_bad_options(fields, match):
    with pytest.raises(ValueError, match=match):
        experiment.Config(**fields)


@pytest.mark.parametrize('name', experiment.SWEEPS)
def test_sweeps_are_of_one_form_and_traceable(name, source):
    chosen = config(source)
    variants = sweep.variants(chosen, experiment.SWEEPS[name])
    assert len({tuple(variant) for variant in variants}) == 1
    assert len({str(variant) for variant in variants}) == len(variants) > 3
    largest = max(sweep.groups(chosen, variants).values(), key=len)
    assert len(largest) > 3  # the floats of a shape share one program, or sweep.stack raises:
    sweep.stack(chosen, largest, experiment.data, experiment.build)


def test_word_vectors_reach_the_network(source, tmp_path):
    path = tmp_path / 'vectors.txt'
    path.write_text('good ' + ' '.join(['0.5'] * 8) + '\nunseen ' + ' '.join(['1.0'] * 8) + '\n')
    chosen = config(source, variant='static', vectors=str(path))
    data = experiment.data(chosen)
    rows = np.flatnonzero(data.device_arrays['given'])
    assert len(rows) == 1 and (data.device_arrays['table'][rows] == 0.5).all()
    with pytest.raises(
        ValueError, match=r'has vectors of 8 numbers, expected 300; use --embedding_dim 8'
    ):
        experiment.data(dataclasses.replace(chosen, embedding_dim=300))
    with pytest.raises(DataError, match=r'no file of word vectors .*none'):
        experiment.data(dataclasses.replace(chosen, vectors=str(tmp_path / 'none')))


def initial_state(chosen, data):
    task, key = experiment.build(chosen, data.spec), jax.random.key(0)
    init = jax.jit(lambda arrays, rows: task.init(key, data.prepare(arrays, rows, key)))
    return init(data.device_arrays, data.batch(0))


def test_a_network_of_the_next_fold_has_no_figure_of_filters(source):
    chosen = config(source, steps=10)  # the evaluation that ends the first fold is the last step
    data = experiment.data(chosen)
    learned, results = initial_state(chosen, data)
    results = results._replace(fold=np.int32(1), best_epoch=np.array([2, 0], np.int32))
    made = experiment.report(chosen, (learned, results), data)
    assert list(made.figures) == ['confusion']
    assert 'a new one for fold 2, not yet trained' in made.summary


def test_predict_gives_a_class_for_each_sentence(source):
    chosen = config(source)
    data = experiment.data(chosen)
    state = initial_state(chosen, data)
    words = vocabulary.pad(data.report_data['corpus'].encoded[:5])
    predicted = jax.jit(experiment.apply(chosen, data.spec)['predict'])(state, words)
    assert predicted.shape == (5,) and set(np.asarray(predicted)) <= {0, 1}


def test_presets_are_whole():
    for name, fields in experiment.PRESETS.items():
        chosen = experiment.Config(**fields)
        assert isinstance(chosen, train.Config), name
    assert {'mr', 'subj', 'trec', 'sst1', 'sst2', 'sms_spam', 'smoke'} <= set(experiment.PRESETS)


@pytest.mark.data
@pytest.mark.parametrize('name', ['mr', 'subj', 'trec', 'sst1', 'sst2', 'sms_spam'])
def test_presets_run_all_folds_and_epochs(name, manual_dir):
    chosen = experiment.Config(**experiment.PRESETS[name], manual_dir=str(manual_dir))
    assert experiment.data(chosen).report_data['cross_validation'].num_steps == chosen.steps
