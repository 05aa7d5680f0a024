"""The family compared: one code width, one budget of steps, one set of measures, one sweep.

Every member maps a picture to `width` numbers and is trained for the same number of steps on the
same batches. Measured on test pictures: squared error of reconstruction, sparseness of the codes,
accuracy of a linear classifier with 100, 1000 and 10,000 labels (--labels; all that a smaller set
has), and of the last one on pictures with Gaussian noise, which neither the classifier nor (but
for `denoising`) the codes have seen.

Run     python -m experiments.autoencoders.family --sweep family
        python -m experiments.autoencoders.family --preset mnist --sweep family
Cost    mnist: one to four minutes a member and seed, of one core.
Found   mnist, seed 0; error of reconstruction, sparseness, and accuracy in % with 100, 1000, 10,000 labels
        and of the last with noise:
          linear         1.15  0.37   68.9  87.2  91.2  77.5
          plain          2.36  0.28   70.5  88.0  91.6  45.2
          l1             1.67  0.42   69.0  87.7  91.6  50.1
          topk           7.27  0.93   75.0  91.6  95.0  83.1
          denoising     16.42  0.42   77.0  90.1  93.5  59.5
          contractive    7.66  0.61   78.1  90.7  93.8  19.0
          deep           0.85  0.37   73.6  88.6  92.0  49.0
          variational    7.69  0.76   53.5  88.1  93.9  46.1
        What a code restores says nothing of what it tells apart. The k largest tell best, and noise moves
        them least; a contractive code is flat near pictures, and noise is not near.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import registry, sparse
from lecture4.data import images as image_data
from lecture4.features import linear_probe
from lecture4.ops.losses import check_unit_interval, squared_error

MEMBERS = ('linear', 'plain', 'l1', 'topk', 'denoising', 'contractive', 'deep', 'variational')


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of training.
    steps: int = 3000
    batch_size: int = 100
    # Where labelled pictures come from: digits, mnist, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Which member of the family.
    member: Literal[MEMBERS] = 'plain'  # pyright: ignore[reportInvalidTypeForm]
    # Width of every member's code.
    width: int = 64
    # Peak of the learning rate, which falls to 0 along a half cosine.
    learning_rate: float = 3e-3
    # Weight of the L1 penalty of `l1`.
    l1: float = 0.02
    # Units that `topk` keeps.
    k: int = 12
    # Share of pixels set to 0 by `denoising`.
    masking: float = 0.3
    # Weight of ||dh/dx||^2 in `contractive`.
    contraction: float = 0.1
    # Labelled pictures that classifiers learn from; numbers above the training set are cut to it.
    labels: tuple[int, ...] = (100, 1000, 10_000)
    # Labelled sets drawn for every number but the whole set.
    draws: int = 5
    # C of logistic regression is chosen from these, on pictures held out.
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    # Standard deviation of the noise in the test of robustness.
    noise: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'width', self.width >= 1, 'at least 1')
        train.require(self, 'k', 1 <= self.k <= self.width, f'between 1 and --width {self.width}')
        train.require(self, 'masking', 0 <= self.masking <= 1, 'between 0 and 1')
        train.require(self, 'labels', min(self.labels, default=0) >= 10, 'each at least 10')


PRESETS = {
    'smoke': {'steps': 20, 'labels': (100,), 'draws': 1, 'penalties': (0.1,)},
    'mnist': {
        'source': 'mnist',
        'width': 256,
        'k': 25,
        'learning_rate': 1e-3,
        'contraction': 0.3,
        'masking': 0.5,
        'steps': 6000,
        'steps_per_call': 100,
        'log_every': 100,
        'evaluate_every': 3000,
        'save_every': 3000,
    },
}
SWEEPS = {
    'family': train.grid(member=MEMBERS, seed=(0, 1, 2)),
    'once': train.grid(member=MEMBERS),
}


def member(config) -> registry.Variant:
    width = config.width
    match config.member:
        case 'linear':
            return registry.linear_autoencoder(width)
        case 'plain':
            return registry.logistic(width)
        case 'l1':
            return registry.l1_sparse(width, config.l1)
        case 'topk':
            return registry.top_k_sparse(width, config.k)
        case 'denoising':
            return registry.masking_denoiser(width, config.masking)
        case 'contractive':
            return registry.logistic(width, contraction_penalty=config.contraction, tied=True)
        case 'deep':
            return registry.deep_relu(width)
    return registry.gaussian_vae(width)


def data(config):
    found = image_data.load(config.source, seed=config.seed, **config.data_kwargs())
    x, test = (
        np.asarray(check_unit_interval(a.reshape(len(a), -1), config.source))
        for a in (found.train_images, found.test_images)
    )
    rows = np.random.default_rng(config.seed).permutation(len(x))
    x, labels = x[rows], found.train_labels[rows].astype(np.int32)
    n_valid = len(x) // 6
    return train.in_memory(
        x[n_valid:],
        config.batch_size,
        seed=config.seed,
        evaluation=test,
        extra={
            'labels': labels[n_valid:],
            'valid': (x[:n_valid], labels[:n_valid]),
            'test_labels': found.test_labels.astype(np.int32),
            'shape': found.train_images.shape[1:3],
        },
    )


def build(config):
    own = member(config)

    def loss(params, x, key):
        return own.loss(params, x, key), {}

    def evaluate(params, x):
        code = own.encode(params, x)
        return {
            'error': jnp.mean(squared_error(x, own.decode(params, code))),
            'sparseness': jnp.mean(sparse.sparseness(code)),
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    init = lambda key, x: own.init(key, x.shape[1])  # noqa: E731
    return train.optimise(init, loss, optax.adam(schedule), evaluate)


def accuracies(config, encode, data):
    """{name: accuracy}: by number of labels, and on noisy pictures, means over draws of the labels."""
    x, labels, extra = data.resident, data.extra['labels'], data.extra
    noise = np.random.default_rng(0).normal(size=data.evaluation.shape)
    noisy = np.clip(data.evaluation + config.noise * noise, 0, 1).astype(np.float32)
    (valid, valid_labels), test_labels = extra['valid'], extra['test_labels']
    codes = encode(x)
    scale = linear_probe.standardizer(codes)
    z, valid = scale(codes), scale(encode(valid))
    tests = {'test': scale(encode(data.evaluation)), 'noisy': scale(encode(noisy))}
    found = {}
    for n in sorted({min(wanted, len(x)) for wanted in config.labels}):
        right = {name: [] for name in tests}
        for draw in range(1 if n == len(x) else config.draws):
            rows = np.random.default_rng((config.seed, draw)).permutation(len(x))[:n]
            predict = linear_probe.fit(z[rows], labels[rows], valid, valid_labels, config.penalties)
            for name, test in tests.items():
                right[name].append(np.mean(predict(test) == test_labels))
        found[f'accuracy_{n}'] = float(np.mean(right['test']))
        found['accuracy_noisy'] = float(np.mean(right['noisy']))  # of the most labels, at the end
    return found


def report(config, state, data):
    from lecture4.figures import dictionary, images

    own, params, shape = member(config), state.params, data.extra['shape']
    metrics = train.evaluated(build(config), state, data.evaluation)
    encode = jax.jit(functools.partial(own.encode, params))
    metrics |= accuracies(config, encode, data)
    pixels = accuracies(config, jnp.asarray, data)
    rows = tuple(
        (name.replace('_', ' '), value, pixels.get(name, '')) for name, value in metrics.items()
    )
    x = data.evaluation[np.linspace(0, len(data.evaluation) - 1, 12).astype(int)]
    restored = np.asarray(own.decode(params, own.encode(params, x)))
    rows_of_pictures = {'picture': x, config.member: restored}
    weight = np.asarray(params.encoder[0].weight)
    caption = f'{config.width} numbers a picture, {config.steps} steps of {config.batch_size}.'
    return train.Report(
        metrics=metrics,
        tables=(train.Table(config.member, ('', config.member, 'raw pixels'), rows, caption),),
        pictures={
            'reconstructions': train.Picture(
                images.rows({k: v.reshape(-1, *shape) for k, v in rows_of_pictures.items()})
            ),
            'filters': train.Picture(
                dictionary.atoms(weight, shape, n=64, columns=16), 'Weights of the first layer.'
            ),
        },
        summary=f'{config.member}: error {metrics["error"]:.3g}, sparseness '
        f'{metrics["sparseness"]:.2f}, '
        + ', '.join(f'{name} {v:.3f}' for name, v in metrics.items() if 'accuracy' in name),
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
