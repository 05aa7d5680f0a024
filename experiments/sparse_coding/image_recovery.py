"""Compression, denoising and inpainting with learned dictionaries (Elad & Aharon, 2006).

Natural patches are sums of few atoms of a dictionary; noise is not. The dictionary
is learned online on clean patches of other images and, for denoising, once more on the noisy image;
patches are approximated by orthogonal matching pursuit within the noise (times a gain chosen on clean
images that are not in the test set) and averaged. Missing pixels are filled in by L1 codes of the known pixels.

Run:      python -m experiments.sparse_coding.image_recovery
          python -m experiments.sparse_coding.image_recovery --preset set12 --manual_dir PATH  # or bsd68
Hardware: CPU, set12 9 CPU-minutes, bsd68 19
Results:  PSNR in dB for sigma 15, 25, 50

          | method                   | Set12                 | BSD68                 |
          |--------------------------|-----------------------|-----------------------|
          | atoms of BSD400          | 31.75, 29.16, 25.90   | 30.93, 28.33, 25.29   |
          | adapted to each image    | 31.93, 29.27, 25.77   | 30.98, 28.30, 25.10   |
          | BM3D (published)         | 32.37, 29.97, 26.72   | 31.07, 28.57, 25.62   |
          | DnCNN (published)        | 32.86, 30.44, 27.18   | 31.73, 29.23, 26.23   |

          Like K-SVD, the method does not exploit similar patches. Set12: inpainting 30.92 with 50 % missing, 25.11 with
          80 %; compression with 4 coefficients per patch: learned 30.76, DCT 27.77, PCA 27.34.
"""

import dataclasses

import numpy as np

from lecture4 import train
from lecture4.data import images
from lecture4.data.images import crops
from lecture4.features import atoms
from lecture4.sparse import restoration, solvers
from lecture4.sparse.dictionary import learners, statistics


@dataclasses.dataclass(frozen=True)
class Config(train.ImageOptions):
    # Number of steps of dictionary learning on clean patches.
    steps: train.AtLeast1 = 300
    batch_size: train.AtLeast1 = 1024
    # Source of clean images to learn from: photos, bsd400, dir:PATH, npz:PATH, csv:PATH.
    clean: str = 'photos'
    # Source of images to recover: photos, set12, bsd68, textures, dir:PATH, npz:PATH, csv:PATH.
    eval_source: str = 'photos'
    # Number of images to recover, the last ones, excluded from learning; 0 takes all.
    num_eval: train.AtLeast0 = 3
    # Size of the center crop of each of these images; 0 takes whole images.
    crop_size: train.AtLeast0 = 192
    # Size of the patches.
    patch_size: train.AtLeast1 = 8
    # Number of atoms of the dictionary.
    num_atoms: train.AtLeast1 = 256
    # Weight of the L1 penalty in learning on clean patches of pixels in [0, 1].
    l1_penalty: train.Positive = 0.1
    # Number of clean patches; a tenth of them is held out for evaluation.
    num_patches: train.AtLeast2 = 100_000
    # Numbers of non-zeros per patch at which compression is measured; empty for no compression.
    nonzeros: tuple[train.AtLeast1, ...] = (1, 2, 4, 8, 16)
    # Standard deviations of the noise, for pixels in 0..255; empty for no denoising.
    sigmas: tuple[train.AtLeast1, ...] = (15, 25, 50)
    # Number of steps of further learning on each noisy image, from the clean dictionary; 0 for none.
    adapt_steps: train.AtLeast0 = 60
    # Weight of the L1 penalty in learning on a noisy image, in standard deviations of the noise.
    adapt_l1_penalty: train.Positive = 1.5
    # Candidate gains: a patch is coded until its residual is the gain times the noise.
    gains: train.Floats = (1.0, 1.05, 1.1, 1.15)
    # Number of clean images on which the gain is chosen, from 180 x 180 pixels of each.
    num_valid: train.AtLeast1 = 2
    # Also denoise with a redundant DCT, for comparison.
    cosines: bool = True
    # Distance in pixels between the patches of a noisy image.
    stride: train.AtLeast1 = 1
    # Fractions of missing pixels; empty for no inpainting.
    missing: tuple[train.InsideUnit, ...] = (0.5, 0.8)
    # Weight of the L1 penalty for inpainting.
    inpaint_l1_penalty: train.Positive = 0.02
    # Distance in pixels between the patches of an image with missing pixels.
    inpaint_stride: train.AtLeast1 = 2


METRICS = (
    train.Metric('recovery_psnr', 'dB', 'higher', 'mean PSNR of recovered images', primary=True),
    train.Metric('psnr', 'dB', 'higher', 'PSNR'),
    train.Metric('gain', '', '', 'gain'),
    *train.DICTIONARY_METRICS,
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
    truth = list(images.load_images(config.eval_source, **config.data_kwargs()).images)
    truth = crops.gray_centers(truth[-config.num_eval :], config.crop_size, config.patch_size)
    clean = images.load_images(config.clean, **config.data_kwargs()).images
    num_excluded = len(truth) if config.clean == config.eval_source else 0
    clean, valid = crops.split_images(clean, config.num_valid, num_excluded)
    valid = crops.gray_centers(valid, min(config.crop_size or 180, 180), config.patch_size)
    signals = crops.sample_patches(clean, config.num_patches, config.patch_size, config.seed)
    signals -= signals.mean(1, keepdims=True)
    num_held_out = max(len(signals) // 10, 1)
    return train.in_memory(
        signals[num_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=signals[:num_held_out][:10_000],
        report_data={'truth': truth, 'valid': valid},
    )


def build(config, spec):
    init, step = learners.make('online', config.num_atoms, config.l1_penalty)

    def evaluate(dictionary, signals):
        return statistics.held_out_metrics(sparse_codes(config, dictionary, signals))

    return train.from_learner(init, step, evaluate, model_axes=learners.MODEL_AXES)


def sparse_codes(config, dictionary, signals):
    return solvers.admm(signals, dictionary.atoms, config.l1_penalty, tolerance=1e-3, tile=128)


def apply(config, spec):
    def encode(state, patches):
        return sparse_codes(config, state.params, patches - patches.mean(1, keepdims=True)).codes

    return {'encode': encode}


def report(config, state, data):
    from lecture4.figures import dictionary, recovery

    D, truth, size = state.params.atoms, data.report_data['truth'], config.patch_size
    keys, what = ('task', 'method'), f'{len(truth)} images of {config.eval_source}'
    tables, figures, galleries = [], {}, {}
    if config.nonzeros:
        records, curves = restoration.measure_compression(
            truth, D, data.device_arrays, config.nonzeros, patch_size=size
        )
        caption = (
            f'{what}, patches of {size} x {size} without overlap, each stored as its mean and so many '
            f'coefficients. Learned: orthogonal matching pursuit with {config.num_atoms} atoms of '
            f'{config.clean}; PCA of the same patches and DCT: the largest coefficients.'
        )
        tables.append(train.Table('Compression', records, keys, caption=caption, pivot='non-zeros'))
        drawing = recovery.rate_distortion(curves, config.nonzeros)
        figures['compression'] = train.Figure(
            drawing, 'PSNR against the number of non-zeros per patch.'
        )
    if config.sigmas:
        names = ('patch_size', 'stride', 'seed', 'gains', 'cosines', 'adapt_steps')
        options = {name: getattr(config, name) for name in (*names, 'adapt_l1_penalty')}
        valid = data.report_data['valid']  # for the gain
        records, restored = restoration.measure_denoising(truth, valid, D, config.sigmas, **options)
        if not (config.crop_size or config.num_eval):  # whole sets, as published
            records += restoration.published_denoising(config.eval_source, config.sigmas)
        caption = (
            f'Mean over {what}. Cosines: redundant DCT; learned: from {config.clean}; adapted: learned '
            f'further on each noisy image. The gain is the best on {config.num_valid} other images of '
            f'{config.clean}.'
        )
        tables.append(train.Table('Denoising', records, keys, caption=caption, pivot='sigma'))
        for sigma, results in restored.items():
            galleries[f'denoising_{sigma}'] = f'noise of standard deviation {sigma} of 255', results
    if config.missing:
        options = {'patch_size': size, 'stride': config.inpaint_stride, 'seed': config.seed}
        records, restored = restoration.measure_inpainting(
            truth, D, config.missing, config.inpaint_l1_penalty, **options
        )
        caption = f'Mean over {what}, by L1 codes of the known pixels of each patch.'
        tables.append(train.Table('Inpainting', records, ('method', 'missing'), caption=caption))
        for fraction, results in restored.items():
            title = f'{fraction:.0%} of the pixels missing (orange)'
            galleries[f'inpainting_{round(100 * fraction)}'] = title, results
    for name, (title, results) in galleries.items():
        drawing = recovery.restorations(results, truth, title=title)
        figures[name] = train.Figure(drawing, f'Images with {title}, and PSNR in dB.')
    order = atoms.display_order(np.asarray(D), np.asarray(state.params.usage))
    figures['dictionary'] = train.Figure(
        dictionary.atoms(np.asarray(D), (size, size), order=order),
        f'The {config.num_atoms} atoms learned from {config.clean}, most used first.',
    )
    ours = ('learned', 'adapted', 'inpainted')
    values = [r['psnr'] for table in tables for r in table.records if r['method'] in ours]
    return train.Report({'recovery_psnr': float(np.mean(values))}, tuple(tables), figures)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
