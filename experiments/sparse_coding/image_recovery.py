"""Pictures recovered from few components: compression, denoising and inpainting with atoms.

Natural patches are sums of few atoms of a learned dictionary; noise, and what is missing, is not.
The dictionary is learned online on clean patches of other pictures and, for denoising, once more on
the noisy picture itself, as Elad & Aharon (2006) do; patches are approximated by orthogonal matching
pursuit within the noise and averaged. How much residual counts as noise (the gain) is chosen on
clean pictures that are not tested. Missing pixels are filled in by L1 codes of the known ones.

Run     python -m experiments.sparse_coding.image_recovery
        python -m experiments.sparse_coding.image_recovery --preset set12 --manual_dir PATH
        python -m experiments.sparse_coding.image_recovery --preset bsd68 --manual_dir PATH
Cost    set12 9 CPU-minutes, bsd68 19.
Result  Set12, sigma 15, 25, 50, dB: atoms of BSD400 31.75, 29.16, 25.90; learned further on each noisy
        picture 31.93, 29.27, 25.77 (BM3D 32.37, 29.97, 26.72; DnCNN 32.86, 30.44, 27.18). K-SVD's class:
        no use is made of patches that are alike. Filled in: 30.92 of 50 % missing, 25.11 of 80 %. Stored with
        4 numbers a patch beside its mean: learned 30.76, DCT 27.77, PCA 27.34.
        BSD68: atoms of BSD400 30.93, 28.33, 25.29; learned further 30.98, 28.30, 25.10 (BM3D 31.07, 28.57,
        25.62; DnCNN 31.73, 29.23, 26.23).
"""

import dataclasses
import logging

import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.data import images as image_data
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
        'BM3D': {15: 31.07, 25: 28.57, 50: 25.62},
        'DnCNN': {15: 31.73, 25: 29.23, 50: 26.23},
    },
    'set12': {
        'BM3D': {15: 32.37, 25: 29.97, 50: 26.72},
        'DnCNN': {15: 32.86, 25: 30.44, 50: 27.18},
    },
}


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of dictionary learning on clean patches.
    steps: int = 300
    # Patches in a step, over all devices.
    batch_size: int = 1024
    # Where clean pictures to learn from come from: photos, bsd400, dir:, npz:.
    clean: str = 'photos'
    # Where the pictures to recover come from: photos, set12, bsd68, textures, dir:, npz:.
    tested: str = 'photos'
    # How many pictures of it, the last ones; where clean names the same set they are not learned
    # from. 0 takes all.
    n_tested: int = 3
    # Side of the piece that is cut from the middle of a tested picture; 0 takes it whole.
    crop: int = 192
    # Side of a patch.
    patch: int = 8
    # Atoms of the dictionary.
    atoms: int = 256
    # Weight of the L1 penalty in learning on clean patches of pixels in [0, 1].
    weight: float = 0.1
    # Clean patches that are drawn; a tenth of them is held out to evaluate on.
    signals: int = 100_000
    # Non-zeros in a patch at which compression is measured; none given: no compression.
    nonzeros: tuple[int, ...] = (1, 2, 4, 8, 16)
    # Standard deviations of the noise, of pixels in 0..255; none given: no denoising.
    sigmas: tuple[int, ...] = (15, 25, 50)
    # Steps of learning on each noisy picture, from the clean dictionary on; 0: none of it.
    adapt: int = 60
    # Weight of the L1 penalty in learning on a noisy picture, in standard deviations of the noise.
    adapt_weight: float = 1.5
    # A patch is explained until its residual is a gain times the noise: those to choose from.
    gains: tuple[float, ...] = (1.0, 1.05, 1.1, 1.15)
    # Clean pictures that the gain is chosen on, 180 x 180 pixels of each; not learned from.
    n_chosen: int = 2
    # Denoise with redundant cosines too, for comparison.
    cosines: bool = True
    # Pixels between the patches of a noisy picture.
    stride: int = 1
    # Shares of the pixels that are missing; none given: no inpainting.
    missing: tuple[float, ...] = (0.5, 0.8)
    # Weight of the L1 penalty where pixels are missing.
    inpaint_weight: float = 0.02
    # Pixels between the patches of a picture with missing pixels.
    inpaint_stride: int = 2

    def __post_init__(self):
        super().__post_init__()
        for name in ('patch', 'atoms', 'stride', 'inpaint_stride', 'n_chosen'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        for name in ('n_tested', 'crop', 'adapt'):
            train.require(self, name, getattr(self, name) >= 0, 'at least 0')
        for name in ('weight', 'adapt_weight', 'inpaint_weight'):
            train.require(self, name, 0 < getattr(self, name) < np.inf, 'above 0, and finite')
        train.require(self, 'gains', min(self.gains, default=0) > 0, 'one or more, each above 0')
        train.require(self, 'signals', self.signals >= 10, 'at least 10')
        train.require(self, 'nonzeros', min(self.nonzeros, default=1) >= 1, 'numbers >= 1')
        train.require(self, 'sigmas', min(self.sigmas, default=1) > 0, 'numbers above 0')
        inside = all(0 < share < 1 for share in self.missing)
        train.require(self, 'missing', inside, 'numbers between 0 and 1')


BSD = {'clean': 'bsd400', 'n_tested': 0, 'crop': 0, 'signals': 400_000, 'steps': 600}
BSD |= {'n_chosen': 4, 'cosines': False}
PRESETS = {
    'smoke': {
        'steps': 4,
        'signals': 2000,
        'batch_size': 64,
        'atoms': 32,
        'crop': 40,
        'n_tested': 1,
        'n_chosen': 1,
        'gains': (1.1,),
        'adapt': 2,
        'nonzeros': (2,),
        'sigmas': (25,),
        'missing': (0.5,),
        'cosines': False,
    },
    'set12': BSD | {'tested': 'set12'},
    'bsd68': BSD | {'tested': 'bsd68', 'nonzeros': (), 'missing': ()},
}
SWEEPS = {
    'weight': train.grid(weight=(0.05, 0.1, 0.2, 0.4)),
    'atoms': train.grid(atoms=(64, 128, 256, 512)),
}


def data(config):
    places = config.data_kwargs()
    tested, _, _ = image_data.load_images(config.tested, **places)
    tested = list(tested)[-config.n_tested :]
    clean = list(image_data.load_images(config.clean, **places)[0])
    apart = config.n_chosen + (len(tested) if config.clean == config.tested else 0)
    if apart >= len(clean):
        raise ValueError(
            f'{config.clean} has {len(clean)} pictures, of which --n_tested and --n_chosen take '
            f'{apart}: none is left to learn from; use fewer, or another --clean'
        )
    clean = clean[: len(clean) - apart + config.n_chosen]
    clean, chosen = clean[: -config.n_chosen], clean[-config.n_chosen :]
    smallest = min(min(image.shape[:2]) for image in [*clean, *chosen, *tested])
    if config.patch > smallest or (config.crop and config.crop < config.patch):
        raise ValueError(f'--patch {config.patch} does not fit pictures of {smallest} pixels')
    signals = crops.sample_patches(clean, config.signals, config.patch, config.seed)
    signals -= signals.mean(1, keepdims=True)
    n_held_out = max(len(signals) // 10, 1)
    return train.in_memory(
        signals[n_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=signals[:n_held_out][:10_000],
        extra={
            'tested': [middle(image, config.crop) for image in tested],
            'chosen': [middle(image, min(config.crop or 180, 180)) for image in chosen],
        },
    )


def middle(image, side):
    shape = [min(side or length, length) for length in image.shape[:2]]
    return center_crop(image, shape)[..., 0]


def build(config):
    def init(key, signals):
        return online.init(key, signals, config.atoms)

    def step(state, signals, key, *, axis_name=None):
        return online.step(state, signals, key, weight=config.weight, axis_name=axis_name)

    def evaluate(state, signals):
        found = solvers.admm(signals, state.atoms, config.weight, tolerance=1e-3, tile=128)
        density = jnp.mean(found.codes != 0, dtype=found.codes.dtype)
        return {'objective': found.objective.mean(), 'density': density}

    return train.Task(init, step, evaluate)


def report(config, state, data):
    from lecture4.figures import dictionary as drawn

    D, usage = np.asarray(state.atoms), np.asarray(state.usage)
    parts = [train.Report()]
    if config.nonzeros:
        parts.append(compression(config, state.atoms, data))
    if config.sigmas:
        parts.append(denoising(config, state.atoms, data))
    if config.missing:
        parts.append(inpainting(config, state.atoms, data))
    order = atoms.display_order(D, usage)
    shown = {
        'dictionary': train.Picture(
            drawn.atoms(D, (config.patch, config.patch), order=order),
            f'The {config.atoms} atoms learned from {config.clean}, most used first.',
        )
    }
    return train.Report(
        {name: value for part in parts for name, value in part.metrics.items()},
        tuple(table for part in parts for table in part.tables),
        {name: made for part in parts for name, made in part.pictures.items()} | shown,
    )


def compression(config, D, data):
    from lecture4.figures import recovery as shown

    images = data.extra['tested']
    kept = restoration.compress(images, D, data.resident, config.nonzeros, size=config.patch)
    caption = (
        f'PSNR in dB over {len(images)} pictures of {config.tested}, patches of {config.patch} x '
        f'{config.patch} side by side, each stored as its mean and so many coefficients. Learned: '
        f'orthogonal matching pursuit in {config.atoms} atoms of {config.clean}; PCA of the same '
        'patches and DCT: the largest.'
    )
    rows = tuple((name, *(f'{v:.2f}' for v in found.mean(1))) for name, found in kept.items())
    columns = ('dictionary', *(str(n) for n in config.nonzeros))
    return train.Report(
        {
            f'compression_{name}_{n}': float(value)
            for name, found in kept.items()
            for n, value in zip(config.nonzeros, found.mean(1), strict=True)
        },
        (train.Table('Compression: PSNR against non-zeros', columns, rows, caption),),
        {'compression': train.Picture(shown.rate(kept, config.nonzeros), caption)},
    )


def denoising(config, D, data):
    truth, size = data.extra['tested'], config.patch
    options = {'size': size, 'stride': config.stride}
    redundant = recovery.cosines(size, 2 * size)
    whole = not (config.crop or config.n_tested)
    metrics, rows, made = {}, [], {}
    for sigma in config.sigmas:
        tried = restoration.gain_curve(
            data.extra['chosen'], D, sigma, config.gains, seed=config.seed + 1, **options
        )
        gain = config.gains[int(np.argmax(tried))]
        spoiled = restoration.noisy(truth, sigma, config.seed)
        found = {'noisy': spoiled}
        if config.cosines:
            found['cosines'] = restoration.denoise(spoiled, redundant, sigma, gain, **options)
        found['learned'] = restoration.denoise(spoiled, D, sigma, gain, **options)
        if config.adapt:
            own = restoration.adapt(
                spoiled, D, sigma, size=size, weight=config.adapt_weight, n_steps=config.adapt,
                seed=config.seed,
            )  # fmt: skip
            found['adapted'] = restoration.denoise(spoiled, own, sigma, gain, **options)
        values = {name: restoration.mean_psnr(images, truth) for name, images in found.items()}
        metrics |= {f'denoising_{name}_{sigma}': value for name, value in values.items()}
        metrics[f'gain_{sigma}'] = gain
        reached = ', '.join(f'{name} {value:.2f} dB' for name, value in values.items())
        LOG.info('noise of %s taken off: %s', sigma, reached)
        known = PUBLISHED.get(config.tested, {}) if whole else {}
        values |= {name: table[sigma] for name, table in known.items() if sigma in table}
        rows.append((sigma, {'gain': f'{gain:g}'} | {n: f'{v:.2f}' for n, v in values.items()}))
        made[f'denoising_{sigma}'] = train.Picture(
            gallery(found, truth, f'noise of standard deviation {sigma}'),
            f'Noise of standard deviation {sigma} of 255, and PSNR in dB of each picture.',
        )
    names = tuple(dict.fromkeys(name for _, values in rows for name in values))
    caption = (
        f'Mean PSNR in dB over {len(truth)} pictures of {config.tested}. Cosines: redundant DCT; '
        f'learned: from {config.clean}; adapted: learned further on each noisy picture. The gain is '
        f'the best on {config.n_chosen} other pictures of {config.clean}. BM3D, DnCNN: as published.'
    )
    cells = tuple((sigma, *(values.get(name, '') for name in names)) for sigma, values in rows)
    table = train.Table('Denoising', ('sigma', *names), cells, caption)
    return train.Report(metrics, (table,), made)


def inpainting(config, D, data):
    truth = data.extra['tested']
    metrics, rows, made = {}, [], {}
    for share in config.missing:
        holed = restoration.holed(truth, share, config.seed)
        filled = restoration.inpaint(
            holed, D, config.inpaint_weight, size=config.patch, stride=config.inpaint_stride
        )
        name = f'inpainting_{round(100 * share)}'
        metrics[name] = restoration.mean_psnr(filled, truth)
        rows.append((f'{share:.0%}', f'{metrics[name]:.2f}'))
        LOG.info('%.0f %% missing filled in: %s dB', 100 * share, rows[-1][1])
        made[name] = train.Picture(
            gallery({'known': holed, 'filled in': filled}, truth, f'{share:.0%} missing'),
            f'{share:.0%} of the pixels are missing, drawn in orange.',
        )
    caption = (
        f'Mean PSNR in dB over {len(truth)} pictures of {config.tested}, by L1 codes of the known '
        'pixels of each patch.'
    )
    table = train.Table('Inpainting', ('missing', 'PSNR'), tuple(rows), caption)
    return train.Report(metrics, (table,), made)


def gallery(found, truth, title, n=3):
    """The first pictures, what was made of them and the truth, PSNR under each."""
    from lecture4.figures import recovery as shown

    rows, notes = {}, {}
    for i, image in enumerate(truth[:n]):
        row = [images[i] for images in found.values()]
        rows[f'picture {i + 1}'] = [*row, image]
        values = [restoration.clipped_psnr(made, image) for made in row]
        texts = ('' if np.isnan(value) else f'{value:.2f} dB' for value in values)
        notes[f'picture {i + 1}'] = [*texts, '']
    return shown.gallery(rows, [*found, 'truth'], notes=notes, title=title)


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
