"""Compression, denoising and inpainting with learned dictionaries (Elad & Aharon, 2006).

Natural patches are sums of few atoms of a learned dictionary; noise, and what is missing, is not. The
dictionary is learned online on clean patches of other images and, for denoising, once more on the noisy
image; patches are approximated by orthogonal matching pursuit within the noise and averaged. How much
residual counts as noise (the gain) is chosen on clean images that are not in the test set. Missing pixels
are filled in by L1 codes of the known ones.

Run:      python -m experiments.sparse_coding.image_recovery
          python -m experiments.sparse_coding.image_recovery --preset set12 --manual_dir PATH
          python -m experiments.sparse_coding.image_recovery --preset bsd68 --manual_dir PATH
Hardware: CPU, set12 9 CPU-minutes, bsd68 19
Results:  PSNR in dB for sigma 15, 25, 50

          | method                   | Set12                 | BSD68                 |
          |--------------------------|-----------------------|-----------------------|
          | atoms of BSD400          | 31.75, 29.16, 25.90   | 30.93, 28.33, 25.29   |
          | adapted to each image    | 31.93, 29.27, 25.77   | 30.98, 28.30, 25.10   |
          | BM3D (published)         | 32.37, 29.97, 26.72   | 31.07, 28.57, 25.62   |
          | DnCNN (published)        | 32.86, 30.44, 27.18   | 31.73, 29.23, 26.23   |

          As K-SVD, it makes no use of similar patches. Set12: inpainting 30.92 with 50 % missing, 25.11 with
          80 %; compression with 4 coefficients per patch: learned 30.76, DCT 27.77, PCA 27.34.
"""

import dataclasses
import logging

import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.data import images
from lecture4.data.images import crops
from lecture4.features import atoms
from lecture4.ops.resize import center_crop
from lecture4.sparse import recovery, restoration, solvers
from lecture4.sparse.dictionary import online

LOG = logging.getLogger('lecture4.image_recovery')  # below lecture4, whose messages are shown
# Mean PSNR in dB. BSD68: README of github.com/cszn/DnCNN (Zhang et al. 2017); Set12: Liang et al.
# 2021 (SwinIR), table 2.
PUBLISHED = {
    'bsd68': {
        'BM3D (published)': {15: 31.07, 25: 28.57, 50: 25.62},
        'DnCNN (published)': {15: 31.73, 25: 29.23, 50: 26.23},
    },
    'set12': {
        'BM3D (published)': {15: 32.37, 25: 29.97, 50: 26.72},
        'DnCNN (published)': {15: 32.86, 25: 30.44, 50: 27.18},
    },
}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Number of steps of dictionary learning on clean patches.
    steps: train.AtLeast1 = 300
    batch_size: train.AtLeast1 = 1024
    # Source of clean images to learn from: photos, bsd400, dir:PATH, npz:PATH.
    clean: str = 'photos'
    # Source of images to recover: photos, set12, bsd68, textures, dir:PATH, npz:PATH.
    eval_source: str = 'photos'
    # Number of images to recover, the last ones, excluded from learning; 0 takes all.
    num_eval: train.AtLeast0 = 3
    # Size of the center crop of each of them; 0 takes whole images.
    crop_size: train.AtLeast0 = 192
    # Size of the patches.
    patch_size: train.AtLeast1 = 8
    # Number of atoms of the dictionary.
    num_atoms: train.AtLeast1 = 256
    # Weight of the L1 penalty in learning on clean patches of pixels in [0, 1].
    l1_penalty: train.Positive = 0.1
    # Number of clean patches; a tenth of them is held out for evaluation.
    num_patches: train.AtLeast2 = 100_000
    # Non-zeros per patch at which compression is measured; none given: no compression.
    nonzeros: tuple[train.AtLeast1, ...] = (1, 2, 4, 8, 16)
    # Standard deviations of the noise, for pixels in 0..255; none given: no denoising.
    sigmas: tuple[train.AtLeast1, ...] = (15, 25, 50)
    # Number of steps of learning on each noisy image, from the clean dictionary on; 0: none.
    adapt_steps: train.AtLeast0 = 60
    # Weight of the L1 penalty in learning on a noisy image, in standard deviations of the noise.
    adapt_l1_penalty: train.Positive = 1.5
    # Candidate gains: a patch is coded until its residual is a gain times the noise.
    gains: train.Floats = (1.0, 1.05, 1.1, 1.15)
    # Number of clean images, 180 x 180 pixels of each, on which the gain is chosen.
    num_valid: train.AtLeast1 = 2
    # Denoise with a redundant DCT too, for comparison.
    cosines: bool = True
    # Distance in pixels between the patches of a noisy image.
    stride: train.AtLeast1 = 1
    # Fractions of the pixels that are missing; none given: no inpainting.
    missing: tuple[train.InsideUnit, ...] = (0.5, 0.8)
    # Weight of the L1 penalty where pixels are missing.
    inpaint_l1_penalty: train.Positive = 0.02
    # Distance in pixels between the patches of an image with missing pixels.
    inpaint_stride: train.AtLeast1 = 2


METRICS = (
    train.Metric(
        'recovery_psnr', 'dB', 'higher', 'mean PSNR of all recovered images', primary=True
    ),
    train.Metric('psnr', 'dB', 'higher', 'PSNR'),
    train.Metric('gain', '', '', 'gain'),
    train.Metric('objective', '', 'lower', 'objective per signal'),
    train.Metric('reconstruction', '', 'lower', 'squared error / 2 per signal'),
    train.Metric('density', 'fraction', '', 'non-zero coefficients'),
    train.Metric('dead', 'count', 'lower', 'unused atoms'),
    train.Metric('replaced', 'count', '', 'replaced atoms'),
)
BSD = {'clean': 'bsd400', 'num_eval': 0, 'crop_size': 0, 'num_patches': 400_000, 'steps': 600}
BSD |= {'num_valid': 4, 'cosines': False}
PRESETS = {
    'smoke': {'steps': 4, 'num_patches': 2000, 'batch_size': 64, 'num_atoms': 32, 'crop_size': 40}
    | {'num_eval': 1, 'num_valid': 1, 'gains': (1.1,), 'adapt_steps': 2, 'nonzeros': (2,)}
    | {'sigmas': (25,), 'missing': (0.5,), 'cosines': False},
    'set12': BSD | {'eval_source': 'set12'},
    'bsd68': BSD | {'eval_source': 'bsd68', 'nonzeros': (), 'missing': ()},
}
SWEEPS = {
    'l1_penalty': train.grid(l1_penalty=(0.05, 0.1, 0.2, 0.4)),
    'num_atoms': train.grid(num_atoms=(64, 128, 256, 512)),
}


def data(config):
    truth = images.load_images(config.eval_source, **config.data_kwargs()).images
    truth = list(truth)[-config.num_eval :]
    clean = list(images.load_images(config.clean, **config.data_kwargs()).images)
    excluded = config.num_valid + (len(truth) if config.clean == config.eval_source else 0)
    if excluded >= len(clean):
        raise ValueError(
            f'{config.clean} has {len(clean)} images, of which --num_eval and --num_valid take '
            f'{excluded}: none is left to learn from; use fewer, or another --clean'
        )
    clean = clean[: len(clean) - excluded + config.num_valid]
    clean, valid = clean[: -config.num_valid], clean[-config.num_valid :]
    smallest = min(min(image.shape[:2]) for image in [*clean, *valid, *truth])
    if config.patch_size > smallest or (config.crop_size and config.crop_size < config.patch_size):
        raise ValueError(
            f'--patch_size {config.patch_size} does not fit images of {smallest} pixels'
        )
    signals = crops.sample_patches(clean, config.num_patches, config.patch_size, config.seed)
    signals -= signals.mean(1, keepdims=True)
    num_held_out = max(len(signals) // 10, 1)
    return train.in_memory(
        signals[num_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=signals[:num_held_out][:10_000],
        report_data={
            'truth': [cropped(image, config.crop_size) for image in truth],
            'valid': [cropped(image, min(config.crop_size or 180, 180)) for image in valid],
        },
    )


def cropped(image, size):
    return center_crop(image, [min(size or length, length) for length in image.shape[:2]])[..., 0]


def build(config, spec):
    def init(key, signals):
        return online.init(key, signals, config.num_atoms)

    def step(dictionary, signals, key, *, reduce):
        return online.step(
            dictionary, signals, key, penalty_weight=config.l1_penalty, reduce=reduce
        )

    def evaluate(dictionary, signals):
        options = {'tolerance': 1e-3, 'tile': 128}
        solution = solvers.admm(signals, dictionary.atoms, config.l1_penalty, **options)
        density = jnp.mean(solution.codes != 0, dtype=signals.dtype)
        return {'objective': solution.objective.mean(), 'density': density}

    return train.from_learner(init, step, evaluate)


def apply(config, spec):
    def encode(state, patches):
        options = {'tolerance': 1e-3, 'tile': 128}
        signals = patches - patches.mean(1, keepdims=True)
        return solvers.admm(signals, state.params.atoms, config.l1_penalty, **options).codes

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import dictionary as drawn

    dictionary = state.params
    D, usage = np.asarray(dictionary.atoms), np.asarray(dictionary.usage)
    parts = []
    if config.nonzeros:
        parts.append(compression(config, dictionary.atoms, data))
    if config.sigmas:
        parts.append(denoising(config, dictionary.atoms, data))
    if config.missing:
        parts.append(inpainting(config, dictionary.atoms, data))
    shape, order = (config.patch_size, config.patch_size), atoms.display_order(D, usage)
    figures = {name: figure for _, own in parts for name, figure in own.items()}
    figures['dictionary'] = train.Figure(
        drawn.atoms(D, shape, order=order),
        f'The {config.num_atoms} atoms learned from {config.clean}, most used first.',
    )
    tables = tuple(table for table, _ in parts)
    ours = ('learned', 'adapted', 'inpainted')
    values = [r['psnr'] for table in tables for r in table.records if r['method'] in ours]
    return train.Report({'recovery_psnr': float(np.mean(values))}, tables, figures)


def compression(config, D, data):
    from lecture4.figures import recovery as drawn

    truth = data.report_data['truth']
    kept = restoration.compression_psnr(
        truth, D, data.device_arrays, config.nonzeros, patch_size=config.patch_size
    )
    caption = (
        f'{len(truth)} images of {config.eval_source}, patches of {config.patch_size} x '
        f'{config.patch_size} without overlap, each stored as its mean and so many coefficients. '
        f'Learned: orthogonal matching pursuit in {config.num_atoms} atoms of {config.clean}; PCA of '
        'the same patches and DCT: the largest.'
    )
    records = [
        {'task': 'compression', 'method': name, 'non-zeros': n, 'psnr': values.mean()}
        for name, curve in kept.items()
        for n, values in zip(config.nonzeros, curve, strict=True)
    ]
    figure = train.Figure(
        drawn.rate_distortion(kept, config.nonzeros), 'PSNR against non-zeros per patch.'
    )
    index = ('task', 'method')
    table = train.Table('Compression', records, index, caption=caption, pivot='non-zeros')
    return table, {'compression': figure}


def denoising(config, D, data):
    truth, size = data.report_data['truth'], config.patch_size
    options = {'patch_size': size, 'stride': config.stride}
    redundant = recovery.cosine_dictionary(size, 2 * size)
    is_whole_set = not (config.crop_size or config.num_eval)
    records, figures = [], {}
    for sigma in config.sigmas:
        curve = restoration.gain_curve(
            data.report_data['valid'], D, sigma, config.gains, seed=config.seed + 1, **options
        )
        gain = config.gains[int(np.argmax(curve))]
        noisy = restoration.add_noise(truth, sigma, config.seed)
        results = {'noisy': noisy}
        if config.cosines:
            results['cosines'] = restoration.denoise(noisy, redundant, sigma, gain, **options)
        results['learned'] = restoration.denoise(noisy, D, sigma, gain, **options)
        if config.adapt_steps:
            own = restoration.adapt_dictionaries(
                noisy, D, sigma, patch_size=size, l1_penalty=config.adapt_l1_penalty,
                n_steps=config.adapt_steps, seed=config.seed,
            )  # fmt: skip
            results['adapted'] = restoration.denoise(noisy, own, sigma, gain, **options)
        for name, restored in results.items():
            value = restoration.mean_psnr(restored, truth)
            LOG.info('noise of %s: %s %.2f dB', sigma, name, value)
            records.append({'task': 'denoising', 'method': name, 'sigma': sigma, 'psnr': value})
        records.append({'task': 'denoising', 'method': 'gain', 'sigma': sigma, 'gain': gain})
        for name, table in PUBLISHED.get(config.eval_source, {}).items():
            if is_whole_set and sigma in table:
                record = {'task': 'denoising', 'method': name, 'sigma': sigma}
                records.append(record | {'psnr': table[sigma]})
        figures[f'denoising_{sigma}'] = train.Figure(
            gallery(results, truth, f'noise of standard deviation {sigma}'),
            f'Noise of standard deviation {sigma} of 255, and the PSNR of each image.',
        )
    caption = (
        f'Mean over {len(truth)} images of {config.eval_source}. Cosines: redundant DCT; learned: from '
        f'{config.clean}; adapted: learned further on each noisy image. The gain is the best on '
        f'{config.num_valid} other images of {config.clean}.'
    )
    index = ('task', 'method')
    return train.Table('Denoising', records, index, caption=caption, pivot='sigma'), figures


def inpainting(config, D, data):
    truth, records, figures = data.report_data['truth'], [], {}
    for fraction in config.missing:
        holed = restoration.remove_pixels(truth, fraction, config.seed)
        filled = restoration.inpaint(
            holed,
            D,
            config.inpaint_l1_penalty,
            patch_size=config.patch_size,
            stride=config.inpaint_stride,
        )
        value = restoration.mean_psnr(filled, truth)
        records.append({'method': 'inpainted', 'missing': f'{fraction:.0%}', 'psnr': value})
        figures[f'inpainting_{round(100 * fraction)}'] = train.Figure(
            gallery({'known': holed, 'inpainted': filled}, truth, f'{fraction:.0%} missing'),
            f'{fraction:.0%} of the pixels are missing, shown in orange.',
        )
    caption = (
        f'Mean over {len(truth)} images of {config.eval_source}, by L1 codes of the known pixels of '
        'each patch.'
    )
    return train.Table('Inpainting', records, ('method', 'missing'), caption=caption), figures


def gallery(results, truth, title, n=3):
    """The first images, what was made of them and the truth, PSNR under each."""
    from lecture4.figures import recovery as drawn

    rows, notes = {}, {}
    for i, image in enumerate(truth[:n]):
        row = [restored[i] for restored in results.values()]
        rows[f'image {i + 1}'] = [*row, image]
        values = [restoration.clipped_psnr(restored, image) for restored in row]
        notes[f'image {i + 1}'] = [*('' if np.isnan(v) else f'{v:.2f} dB' for v in values), '']
    return drawn.gallery(rows, [*results, 'truth'], notes=notes, title=title)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
