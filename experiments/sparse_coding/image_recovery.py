"""Pictures recovered from few components: compression, denoising and inpainting with atoms.

Natural patches are sums of few atoms of a learned dictionary; noise, and what is missing, is not.
The dictionary is learned online on clean patches of other pictures and, for denoising, once more on
the noisy picture itself, as Elad & Aharon (2006) do; patches are approximated by orthogonal matching
pursuit within the noise and averaged. Missing pixels are filled in by L1 codes of the known ones.

Run     python -m experiments.sparse_coding.image_recovery
        python -m experiments.sparse_coding.image_recovery --preset bsd68 --manual_dir PATH
Cost    80 CPU-seconds as it stands; BSD68 at one sigma, with --sigmas 25 --adapt 0, 190, on one core.
Result  BSD68, sigma 25: 28.45 dB with that command. Published: BM3D 28.57, DnCNN 29.23.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lecture4 import train
from lecture4.data import crops, pictures
from lecture4.ops import linalg
from lecture4.sparse import atoms, dictionary, recovery, solvers

# Mean PSNR over BSD68, as published with DnCNN (Zhang et al. 2017).
PUBLISHED = {'BM3D': {15: 31.07, 25: 28.57, 50: 25.62}, 'DnCNN': {15: 31.73, 25: 29.23, 50: 26.23}}


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
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
    # A patch is explained until its residual is this many standard deviations a pixel.
    gain: float = 1.1
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
        for name in ('patch', 'atoms', 'stride', 'inpaint_stride'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        for name in ('n_tested', 'crop', 'adapt'):
            train.require(self, name, getattr(self, name) >= 0, 'at least 0')
        for name in ('weight', 'adapt_weight', 'gain', 'inpaint_weight'):
            train.require(self, name, 0 < getattr(self, name) < np.inf, 'above 0, and finite')
        train.require(self, 'signals', self.signals >= 10, 'at least 10')
        train.require(self, 'nonzeros', min(self.nonzeros, default=1) >= 1, 'numbers >= 1')
        train.require(self, 'sigmas', min(self.sigmas, default=1) > 0, 'numbers above 0')
        inside = all(0 < share < 1 for share in self.missing)
        train.require(self, 'missing', inside, 'numbers between 0 and 1')


BSD = {'clean': 'bsd400', 'n_tested': 0, 'crop': 0, 'signals': 400_000, 'steps': 600}
PRESETS = {
    'smoke': {
        'steps': 4,
        'signals': 2000,
        'batch_size': 64,
        'atoms': 32,
        'crop': 40,
        'n_tested': 1,
        'adapt': 2,
        'nonzeros': (2,),
        'sigmas': (25,),
        'missing': (0.5,),
        'cosines': False,
    },
    'set12': BSD | {'tested': 'set12'},
    'bsd68': BSD | {'tested': 'bsd68', 'nonzeros': (), 'missing': (), 'cosines': False},
}
SWEEPS = {
    'weight': train.grid(weight=(0.05, 0.1, 0.2, 0.4)),
    'atoms': train.grid(atoms=(64, 128, 256, 512)),
}


def data(config):
    places = config.places()
    tested, _, _ = pictures.grey(config.tested, **places)
    tested = list(tested)[-config.n_tested :]
    clean, _, _ = pictures.grey(config.clean, **places)
    if config.clean == config.tested:
        clean = list(clean)[: len(clean) - len(tested)]
        if not clean:
            raise ValueError(
                f'--n_tested {config.n_tested} of {config.tested} leaves no picture to learn from; '
                f'use 1 to {len(tested) - 1}, or another --clean'
            )
    smallest = min(min(image.shape[:2]) for image in [*clean, *tested])
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
        extra=[_middle(image[:, :, 0], config.crop) for image in tested],
    )


def _middle(image, side):
    h, w = (min(side or length, length) for length in image.shape)
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    return image[top : top + h, left : left + w]


def build(config):
    def init(key, signals):
        return dictionary.init(key, signals, config.atoms)

    def step(state, signals, key, *, axis_name=None):
        return dictionary.step(state, signals, key, weight=config.weight, axis_name=axis_name)

    def evaluate(state, signals):
        found = solvers.admm(signals, state.atoms, config.weight, tolerance=1e-3, tile=128)
        density = jnp.mean(found.codes != 0, dtype=found.codes.dtype)
        return {'objective': found.objective.mean(), 'density': density}

    return train.Task(init, step, evaluate)


def compress(config, D, data):
    """{dictionary: PSNR [counts, pictures]} of pictures stored with few non-zeros in a patch."""
    components = linalg.pca(jnp.asarray(data.resident), config.patch**2 - 1)[0].matrix
    cosines = recovery.cosines(config.patch)
    kinds = {
        'learned': jax.jit(
            lambda x, n: recovery.pursue(x, D, 0.0, max_atoms=n)[0], static_argnames='n'
        ),
        'PCA': lambda x, n: recovery.largest(x, components, n),
        'DCT': lambda x, n: recovery.largest(x, cosines, n),
    }
    found = {}
    for name, approximate in kinds.items():
        found[name] = np.zeros((len(config.nonzeros), len(data.extra)))
        for i, n in enumerate(config.nonzeros):
            few = functools.partial(approximate, n=n)
            for j, image in enumerate(data.extra):
                restored, original = recovery.store(jnp.asarray(image), few, size=config.patch)
                found[name][i, j] = psnr(restored, original)
    return found


def psnr(found, truth):
    return float(recovery.psnr(jnp.clip(found, 0, 1), truth))


def denoise(config, D, images, sigma):
    """{name: pictures} for one level of noise, which differs from picture to picture."""
    options = {'size': config.patch, 'stride': config.stride, 'gain': config.gain}
    run = jax.jit(functools.partial(recovery.denoise, **options))
    adapt = jax.jit(_adapt, static_argnums=0)
    redundant = recovery.cosines(config.patch, 2 * config.patch)
    found = {'noisy': [], 'cosines': [], 'learned': [], 'adapted': []}
    for i, image in enumerate(images):
        noise = np.random.default_rng((config.seed, i, sigma)).standard_normal(image.shape)
        noisy = jnp.asarray(image + sigma / 255 * noise, jnp.float32)
        found['noisy'].append(noisy)
        found['learned'].append(run(noisy, D, sigma / 255))
        if config.cosines:
            found['cosines'].append(run(noisy, redundant, sigma / 255))
        if config.adapt:
            key = jax.random.fold_in(jax.random.key(config.seed), i)
            own = adapt(config, key, noisy, D, sigma / 255)
            found['adapted'].append(run(noisy, own, sigma / 255))
    return {name: made for name, made in found.items() if made}


def _adapt(config, key, noisy, D, sigma):
    signals = recovery.cut(noisy, config.patch)
    signals = signals - jnp.mean(signals, axis=1, keepdims=True)
    weight = config.adapt_weight * sigma
    return recovery.learn(
        key, signals, config.atoms, weight=weight, n_steps=config.adapt, batch_size=1024, init=D
    )


def inpaint(config, D, images, share):
    """Pictures of which a share of pixels is missing (NaN there), and the same filled in."""
    run = jax.jit(
        functools.partial(recovery.inpaint, size=config.patch, stride=config.inpaint_stride)
    )
    holed, filled = [], []
    for i, image in enumerate(images):
        rng = np.random.default_rng((config.seed, i, round(1000 * share)))
        known = rng.uniform(size=image.shape) >= share
        holed.append(np.where(known, image, np.nan))
        filled.append(run(jnp.asarray(image), jnp.asarray(known), D, config.inpaint_weight))
    return holed, filled


def report(config, state, data):
    from lecture4.figures import dictionary as drawn
    from lecture4.figures import recovery as shown

    D, truth = state.atoms, data.extra
    where = f'{len(truth)} pictures of {config.tested}'
    metrics, tables, made = {}, [], {}
    mean = lambda found: float(np.mean([psnr(f, t) for f, t in zip(found, truth, strict=True)]))  # noqa: E731

    if config.nonzeros:
        kept = compress(config, D, data)
        for name, values in kept.items():
            for n, value in zip(config.nonzeros, values.mean(1), strict=True):
                metrics[f'compression_{name}_{n}'] = float(value)
        caption = (
            f'PSNR in dB over {where}, {config.patch} x {config.patch} patches side by side, each '
            'stored as its mean and so many coefficients. Learned: orthogonal matching pursuit in '
            f'{config.atoms} atoms of {config.clean}; PCA of the same patches and DCT: the largest.'
        )
        columns = ('dictionary', *(f'{n}' for n in config.nonzeros))
        rows = tuple((n, *(f'{v:.2f}' for v in values.mean(1))) for n, values in kept.items())
        tables.append(train.Table('Compression: PSNR against non-zeros', columns, rows, caption))
        made['compression'] = train.Picture(shown.rate(kept, config.nonzeros), caption)

    rows = []
    for sigma in config.sigmas:
        found = denoise(config, D, truth, sigma)
        values = {name: mean(images) for name, images in found.items()}
        metrics |= {f'denoising_{name}_{sigma}': value for name, value in values.items()}
        published = {k: f'{v[sigma]:.2f}' for k, v in PUBLISHED.items() if sigma in v}
        known = published if config.tested == 'bsd68' and not config.crop else {}
        rows.append((sigma, {n: f'{v:.2f}' for n, v in values.items()} | known))
        made[f'denoising_{sigma}'] = train.Picture(
            gallery(shown, found, truth, f'noise of standard deviation {sigma}'),
            f'Noise of standard deviation {sigma} of 255, and PSNR in dB of each picture.',
        )
    if rows:
        names = tuple(dict.fromkeys(name for _, values in rows for name in values))
        caption = (
            f'Mean PSNR in dB over {where}. Cosines: redundant DCT; learned: from {config.clean}; '
            f'adapted: learned further on each noisy picture. BM3D and DnCNN: as published.'
        )
        cells = tuple((sigma, *(values.get(name, '') for name in names)) for sigma, values in rows)
        tables.append(train.Table('Denoising', ('sigma', *names), cells, caption))

    rows = []
    for share in config.missing:
        holed, filled = inpaint(config, D, truth, share)
        rows.append((f'{share:.0%}', f'{mean(filled):.2f}'))
        metrics[f'inpainting_{round(100 * share)}'] = mean(filled)
        made[f'inpainting_{round(100 * share)}'] = train.Picture(
            gallery(shown, {'known': holed, 'filled in': filled}, truth, f'{share:.0%} missing'),
            f'{share:.0%} of the pixels are missing, drawn in orange.',
        )
    if rows:
        caption = f'Mean PSNR in dB over {where}, L1 codes of the known pixels of each patch.'
        tables.append(train.Table('Inpainting', ('missing', 'PSNR'), tuple(rows), caption))

    order = atoms.display_order(np.asarray(D), np.asarray(state.usage))
    made['dictionary'] = train.Picture(
        drawn.atoms(np.asarray(D), (config.patch, config.patch), order=order),
        f'The {config.atoms} atoms learned from {config.clean}, most used first.',
    )
    return train.Report(metrics, tuple(tables), made)


def gallery(shown, found, truth, title, n=3):
    """The first pictures, what was made of them and the truth, PSNR under each."""
    rows, notes = {}, {}
    for i, image in enumerate(truth[:n]):
        row = [images[i] for images in found.values()]
        rows[f'picture {i + 1}'] = [*row, image]
        values = [psnr(made, image) for made in row]
        notes[f'picture {i + 1}'] = [
            *('' if np.isnan(value) else f'{value:.2f} dB' for value in values),
            '',
        ]
    return shown.gallery(rows, [*found, 'truth'], notes=notes, title=title)


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
