"""Sparse coding of natural images: atoms that look like Gabor functions (Olshausen & Field, Nature 1996).

A dictionary is learned from patches of whitened photographs under a sparsity penalty, and a Gabor
function is fitted to every atom: the fraction of good fits and the distribution of orientations and frequencies tell
how close the bases are to those of the paper (localized, oriented, bandpass). The paper shows its bases and gives no
such numbers.

Run:      python -m experiments.sparse_coding.natural_image_bases
          python -m experiments.sparse_coding.natural_image_bases --preset olshausen --manual_dir PATH
Hardware: one core, about a minute
Results:  atoms that fit a Gabor; entropy of their orientations (1 is uniform); quartiles of frequency

          | source      | good fits, % | entropy | frequency, cycles/pixel |
          |-------------|--------------|---------|-------------------------|
          | photos      | 82.4         | 0.996   | 0.150 / 0.222 / 0.263   |
          | photos, log | 64.8         | 0.990   | 0.149 / 0.209 / 0.252   |
          | olshausen   | 69.5         | 0.997   | 0.135 / 0.188 / 0.212   |

          olshausen with --penalty_weight 1: 46.5 %; its images are blurred above 0.39 cycles per
          pixel, and atoms that code the little noise left there remain noise.
"""

import dataclasses
import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.data.images import crops, load_images, whiten
from lecture4.features import atoms, gabor
from lecture4.sparse import objective, solvers
from lecture4.sparse.dictionary import learners, online

PENALTIES = {'l1': objective.L1, 'log': objective.LOG}


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    steps: train.AtLeast1 = 1000
    batch_size: train.AtLeast1 = 512
    # Source of images: photos, olshausen, textures, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'photos'
    # Whiten the images; those of olshausen are whitened already.
    whiten: bool = True
    # Size of the patches, in pixels.
    patch_size: train.AtLeast4 = 12
    # Number of atoms of the dictionary.
    num_atoms: train.AtLeast1 = 256
    # Sparsity penalty: |a|, or log(1 + a^2) as in the paper.
    penalty: Literal['l1', 'log'] = 'l1'
    # Weight of the penalty; whitened pixels have variance 1.
    penalty_weight: train.Positive = 1.0
    # Number of iterations of the solver per step.
    num_iterations: train.AtLeast1 = 8
    # Number of patches; a tenth of them, at most 4000, is held out for evaluation.
    num_patches: train.AtLeast2 = 100_000


METRICS = (
    train.Metric('good_fits', 'fraction', 'higher', 'atoms that fit a Gabor', primary=True),
    train.Metric('orientation_entropy', '', 'higher', 'entropy of orientations (1 is uniform)'),
    train.Metric('frequency', 'cycles/pixel', '', 'frequency of the fits'),
    train.Metric('coherence', '', 'lower', 'coherence of the dictionary'),
    train.Metric(
        'objective',
        '',
        'lower',
        'objective per signal',
        depends_on=(
            'penalty',
            'penalty_weight',
        ),
    ),
    train.Metric('reconstruction', '', 'lower', 'squared error / 2 per signal'),
    train.Metric('explained', 'fraction', 'higher', 'explained variance'),
    train.Metric('density', 'fraction', '', 'non-zero coefficients'),
    train.Metric('dead', 'count', 'lower', 'unused atoms'),
    train.Metric('replaced', 'count', '', 'replaced atoms'),
)
PRESETS = {
    'smoke': {'steps': 4, 'num_patches': 500, 'batch_size': 64, 'num_atoms': 16, 'patch_size': 8},
    'olshausen': {'source': 'olshausen', 'whiten': False, 'penalty_weight': 2.0},
    'log': {'penalty': 'log', 'num_iterations': 20},
}
SWEEPS = {
    'penalty_weight': train.grid(penalty_weight=(0.5, 1.0, 1.5, 2.0)),
    'overcompleteness': train.grid(num_atoms=(72, 144, 288, 576)),
}


def data(config):
    images = load_images(config.source, **config.data_kwargs()).images
    prepared = whiten.whiten(images) if config.whiten else whiten.standardize(images)
    # Whitening treats images as periodic, so their borders are left out.
    margin = 4 if config.whiten else 0
    inner = [
        image[margin : len(image) - margin, margin : image.shape[1] - margin] for image in prepared
    ]
    signals = crops.sample_patches(inner, config.num_patches, config.patch_size, config.seed)
    num_held_out = min(len(signals) // 10, 4000)
    return train.in_memory(
        signals[num_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=signals[:num_held_out],
    )


def sparse_codes(config, dictionary, signals):
    options = {'tolerance': 1e-3, 'tile': 128}
    if config.penalty == 'l1':
        return solvers.admm(signals, dictionary.atoms, config.penalty_weight, **options)
    return solvers.fista(
        signals, dictionary.atoms, config.penalty_weight, penalty=objective.LOG, **options
    )


def build(config, spec):
    def init(key, signals):
        return online.init(key, signals, config.num_atoms)

    def evaluate(dictionary, signals):
        solution = sparse_codes(config, dictionary, signals)
        residual = signals - solution.codes @ dictionary.atoms.T
        return {
            'objective': jnp.mean(solution.objective),
            'explained': 1 - jnp.sum(residual * residual) / jnp.sum(signals * signals),
            'density': jnp.mean(jnp.abs(solution.codes) > 1e-3, dtype=signals.dtype),
        }

    step = functools.partial(
        online.step,
        penalty_weight=config.penalty_weight,
        penalty=PENALTIES[config.penalty],
        n_iterations=config.num_iterations,
    )
    return train.from_learner(init, step, evaluate, model_axes=learners.MODEL_AXES)


def apply(config, spec):
    def encode(state, patches):
        return sparse_codes(config, state.params, patches).codes

    return {'encode': encode, 'decode': lambda state, codes: codes @ state.params.atoms.T}


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    shape = (config.patch_size, config.patch_size)
    D, usage = np.asarray(state.params.atoms), np.asarray(state.params.usage)
    fits = gabor.fit_gabors(D, shape)
    summary = gabor.summarize(fits)
    quartiles = {q: summary[f'frequency_{q}'] for q in ('q25', 'median', 'q75')}
    record = {
        'source': config.source,
        'good_fits': summary['fraction_good'],
        'orientation_entropy': summary['orientation_entropy'],
        'coherence': atoms.coherence(D),
        'dead': int(atoms.dead(usage).sum()),
    }
    records = [record, *({'quantile': q, 'frequency': v} for q, v in quartiles.items())]
    few = atoms.contrast_quantiles(data.evaluation)
    codes = np.asarray(sparse_codes(config, state.params, jnp.asarray(data.evaluation[few])).codes)
    caption = (
        'An atom fits if a Gabor leaves less than a fifth of its variance unexplained (R^2 > 0.8) '
        'and its spectrum at frequency zero is at most half of that at the carrier, which excludes '
        'blobs, single pixels and strokes of one sign.'
    )
    return train.Report(
        metrics={'good_fits': summary['fraction_good']},
        tables=(
            train.Table('Fitted Gabors', (record,), ('source',), caption=caption),
            train.Table('Frequency of the fits', records[1:], ('quantile',)),
        ),
        figures={
            'bases': train.Figure(
                drawn.atoms(D, shape, order=atoms.display_order(D)),
                f'The {config.num_atoms} atoms learned from {config.source}, sorted by similarity.',
            ),
            'gabors': train.Figure(
                drawn.gabors(D, fits, gabor.render(fits, shape), shape),
                'Orientation and frequency of the fitted Gabors, and the best fits.',
            ),
            'codes': train.Figure(
                drawn.codes(data.evaluation[few], codes, D, codes @ D.T, shape),
                'Held-out patches as sums of few atoms.',
            ),
            'usage': train.Figure(
                curves.atom_usage(usage), 'Fraction of patches that use each atom.'
            ),
        },
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
