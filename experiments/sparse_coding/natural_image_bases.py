"""Bases of natural pictures: the atoms that code them sparsely look like Gabor functions.

Olshausen & Field, Nature 1996. Pictures are whitened, patches drawn from them, a dictionary learned
under a sparse penalty, and a Gabor function fitted to every atom: the share that fits, and how
orientations and frequencies spread, say how far the bases are those of the paper (localised,
oriented, bandpass). The paper drew its bases and gave no such numbers; ours are what this prints.

Run     python -m experiments.sparse_coding.natural_image_bases
        python -m experiments.sparse_coding.natural_image_bases --preset olshausen --manual_dir PATH
Cost    About a minute of one core. Share of atoms that fit a Gabor; entropy of their orientations, 1 is uniform;
        quartiles of their frequencies in cycles per pixel:
        photos         82.4 %   0.996   0.150 / 0.222 / 0.263
        photos, log    64.8 %   0.990   0.149 / 0.209 / 0.252
        olshausen      69.5 %   0.997   0.135 / 0.188 / 0.212; with --weight 1, 46.5 %: its pictures are blurred
                       above 0.39 cycles per pixel, and atoms that code what little noise is left there stay noise.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.data import images as image_data
from lecture4.data.images import crops
from lecture4.data.images import whiten as whitening
from lecture4.features import atoms, gabor
from lecture4.sparse import objective, solvers
from lecture4.sparse.dictionary import online

PENALTIES = {'l1': objective.L1, 'log': objective.LOG}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of dictionary learning.
    steps: int = 1000
    # Patches in a step, over all devices.
    batch_size: int = 512
    # Where the pictures come from: photos, olshausen, textures, dir:PATH, npz:PATH.
    source: str = 'photos'
    # Whether the pictures still have to be whitened; those of olshausen come whitened.
    whiten: bool = True
    # Side of the patches, in pixels.
    patch: int = 12
    # Atoms of the dictionary.
    atoms: int = 256
    # What makes codes sparse: |a|, or log(1 + a^2) as in the paper.
    penalty: Literal['l1', 'log'] = 'l1'
    # Weight of the penalty; whitened pixels have variance 1.
    weight: float = 1.0
    # Iterations of the solver in a step.
    inner: int = 8
    # Patches that are drawn; a tenth of them, at most 4000, is held out to evaluate on.
    patches: int = 100_000

    def __post_init__(self):
        super().__post_init__()
        for name in ('atoms', 'inner'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        train.require(self, 'patch', self.patch >= 4, 'at least 4, for a Gabor to be fitted')
        train.require(self, 'weight', 0 < self.weight < np.inf, 'positive and finite')
        train.require(self, 'patches', self.patches >= 10, 'at least 10')


PRESETS = {
    'smoke': {'steps': 4, 'patches': 500, 'batch_size': 64, 'atoms': 16, 'patch': 8},
    'olshausen': {'source': 'olshausen', 'whiten': False, 'weight': 2.0},
    'log': {'penalty': 'log', 'inner': 20},
}
SWEEPS = {
    'weight': train.grid(weight=(0.5, 1.0, 1.5, 2.0)),
    'overcompleteness': train.grid(atoms=(72, 144, 288, 576)),
}


def data(config):
    images, _, _ = image_data.load_images(config.source, **config.data_kwargs())
    prepared = whitening.whiten(images) if config.whiten else whitening.standardize(images)
    # Whitening takes pictures for periodic: what it makes of their borders is left out.
    margin = 4 if config.whiten else 0
    inner = [
        image[margin : len(image) - margin, margin : image.shape[1] - margin] for image in prepared
    ]
    signals = crops.sample_patches(inner, config.patches, config.patch, config.seed)
    n_held_out = min(len(signals) // 10, 4000)
    return train.in_memory(
        signals[n_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=signals[:n_held_out],
    )


def build(config):
    penalty = PENALTIES[config.penalty]

    def init(key, signals):
        return online.init(key, signals, config.atoms)

    def step(state, signals, key, *, axis_name=None):
        return online.step(
            state,
            signals,
            key,
            weight=config.weight,
            penalty=penalty,
            n_inner=config.inner,
            axis_name=axis_name,
        )

    def evaluate(state, signals):
        found = encode(config, state, signals)
        residual = signals - found.codes @ state.atoms.T
        energy = jnp.sum(signals * signals)
        return {
            'objective': jnp.mean(found.objective),
            'explained': 1 - jnp.sum(residual * residual) / energy,
            'density': jnp.mean(jnp.abs(found.codes) > 1e-3, dtype=signals.dtype),
        }

    def codes(state, signals):
        return {'codes': encode(config, state, signals).codes}

    return train.Task(init, step, evaluate, codes)


def encode(config, state, signals):
    if config.penalty == 'l1':
        return solvers.admm(signals, state.atoms, config.weight, tolerance=1e-3, tile=128)
    return solvers.fista(
        signals, state.atoms, config.weight, penalty=objective.LOG, tolerance=1e-3, tile=128
    )


def report(config, state, data):
    from lecture4.figures import curves
    from lecture4.figures import dictionary as drawn

    shape = (config.patch, config.patch)
    D, usage = np.asarray(state.atoms), np.asarray(state.usage)
    fits = gabor.fit_gabors(D, shape)
    found = gabor.summarise(fits)
    numbers = {
        'share of atoms that fit a Gabor': f'{100 * found["share_good"]:.1f} %',
        'their orientations: entropy over 8 bins (1 is uniform)': f'{found["orientation_entropy"]:.3f}',
        'their frequencies, cycles per pixel: quartiles': ' / '.join(
            f'{found[f"frequency_{name}"]:.3f}' for name in ('q25', 'median', 'q75')
        ),
        'coherence of the dictionary': f'{atoms.coherence(D):.3f}',
        'dead atoms': f'{int(atoms.dead(usage).sum())} of {config.atoms}',
    }
    few = few_signals(data.evaluation)
    solved = encode(config, state, jnp.asarray(data.evaluation[few]))
    return train.Report(
        metrics={name: float(value) for name, value in found.items()},
        tables=(
            train.Table(
                'The bases in numbers',
                ('what', config.source),
                tuple(numbers.items()),
                'An atom fits where a Gabor leaves less than a fifth of its energy about the mean '
                '(R^2 > 0.8) and its spectrum at frequency zero is at most half of that at the '
                'carrier, which refuses blobs, single pixels and strokes of one sign.',
            ),
        ),
        pictures={
            'bases': train.Picture(
                drawn.atoms(D, shape, order=atoms.display_order(D)),
                f'The {config.atoms} atoms learned from {config.source}, like beside like.',
            ),
            'gabors': train.Picture(
                drawn.gabors(D, fits, gabor.draw(fits, shape), shape),
                'Orientation and frequency of the fitted Gabors, and the best fits.',
            ),
            'codes': train.Picture(
                drawn.codes(
                    data.evaluation[few],
                    np.asarray(solved.codes),
                    D,
                    np.asarray(solved.codes @ state.atoms.T),
                    shape,
                ),
                'Held-out patches as sums of few atoms.',
            ),
            'usage': train.Picture(curves.usage(usage), 'Share of patches that use each atom.'),
        },
    )


def few_signals(signals):
    """Four held-out patches of rising energy, none of them flat."""
    order = np.argsort(np.sum(signals**2, axis=1))
    return order[(len(order) * np.array([0.4, 0.6, 0.8, 0.95])).astype(int)]


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
