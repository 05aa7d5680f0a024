"""The family compared: one code width, one budget of steps, one set of measures, one sweep.

Every member maps a picture to `width` numbers and is trained for the same number of steps on the
same batches. Measured on test pictures: squared error of reconstruction, sparseness of the codes,
accuracy of a linear classifier with 100, 1000 and all labels, and of the last one on pictures with
Gaussian noise, which neither the classifier nor (but for `denoising`) the codes have seen.

Run     python -m experiments.autoencoders.family --sweep family
        python -m experiments.autoencoders.family --preset mnist --sweep family
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import (
    contractive,
    deep,
    denoising,
    linear,
    network,
    sparse,
    topk,
    variational,
)
from lecture4.data import pictures
from lecture4.ops.losses import bernoulli_nll, check_unit_interval, squared_error

MEMBERS = ('linear', 'plain', 'l1', 'topk', 'denoising', 'contractive', 'deep', 'variational')


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
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
    # Standard deviation of the noise in the test of robustness.
    noise: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'width', self.width >= 1, 'at least 1')
        train.require(self, 'k', 1 <= self.k <= self.width, f'between 1 and --width {self.width}')
        train.require(self, 'masking', 0 <= self.masking <= 1, 'between 0 and 1')
        train.require(self, 'labels', self.labels and min(self.labels) >= 10, 'each at least 10')


PRESETS = {
    'smoke': {'steps': 20, 'labels': (100,), 'draws': 1},
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


class Member(NamedTuple):
    """A member as the comparison needs it.

    init         (key, d) -> params
    loss         (params, x, key) -> scalar
    encode       (params, x) -> codes [n, width]
    reconstruct  (params, codes) -> pixels [n, d]
    """

    init: Any
    loss: Any
    encode: Any
    reconstruct: Any


def logistic(config, loss, tied=False):
    """One layer of logistic units, Bernoulli pixels: plain, denoising and contractive."""

    def encode(params, x):
        return network.encode(params, x, network.identity, jax.nn.sigmoid)

    def logits(params, code):
        return network.decode(params, code, network.identity)

    return Member(
        lambda key, d: network.init_autoencoder(key, (d, config.width), tied=tied, scale='sigmoid'),
        functools.partial(loss, lambda params, x: logits(params, encode(params, x))),
        encode,
        lambda params, code: jax.nn.sigmoid(logits(params, code)),
    )


def member(config) -> Member:
    w = config.width

    def plain(run, params, x, key):
        return jnp.mean(bernoulli_nll(run(params, x), x))

    def denoise(run, params, x, key):
        corrupt = functools.partial(denoising.masking, share=config.masking)
        run = functools.partial(run, params)
        return jnp.mean(denoising.loss(run, bernoulli_nll, corrupt, x, key))

    def contract(run, params, x, key):
        penalty = contractive.layer_penalty(params.encoder[0], x, jax.nn.sigmoid)
        return plain(run, params, x, key) + config.contraction * jnp.mean(penalty)

    match config.member:
        case 'linear':
            return Member(
                lambda key, d: linear.init(key, d, w),
                lambda params, x, key: jnp.mean(linear.loss(params, x)),
                lambda params, x: network.encode(params, x, network.identity),
                lambda params, code: network.decode(params, code, network.identity),
            )
        case 'l1':
            return Member(
                lambda key, d: topk.init_params(key, jnp.zeros((1, d)), w),
                lambda params, x, key: sparse.l1_loss(params, x, config.l1)[0],
                sparse.l1_encode,
                lambda params, code: topk.decode(sparse.normalised(params), code),
            )
        case 'topk':
            return Member(
                lambda key, d: topk.init_params(key, jnp.zeros((1, d)), w),
                lambda params, x, key: topk.loss(params, x, config.k)[0],
                lambda params, x: topk.encode(params, x, config.k),
                topk.decode,
            )
        case 'deep':
            relu = jax.nn.relu
            return Member(
                lambda key, d: network.init_autoencoder(key, (d, 4 * w, w), scale='he'),
                lambda params, x, key: jnp.mean(deep.loss(params, x, activation=relu)),
                lambda params, x: deep.encode(params, x, relu),
                lambda params, code: jax.nn.sigmoid(deep.decode(params, code, relu)),
            )
        case 'variational':
            sized = functools.cache(lambda d: variational.mlp(d, (4 * w,), w))

            def loss(params, x, key):
                return variational.loss(variational.bound(sized(x.shape[1]), params, x, key))

            def decode(params, code):
                d = jax.tree.leaves(params.decoder)[-1].shape[-1]
                return jax.nn.sigmoid(sized(d).decode(params, code))

            return Member(
                lambda key, d: sized(d).init(key),
                loss,
                lambda params, x: sized(x.shape[1]).encode(params, x)[:, :w],
                decode,
            )
    one_layer = {'plain': plain, 'denoising': denoise, 'contractive': contract}
    return logistic(config, one_layer[config.member], tied=config.member == 'contractive')


def data(config):
    found = pictures.labelled(config.source, seed=config.seed, **config.places())
    x, test = (a.reshape(len(a), -1) for a in (found.train_images, found.test_images))
    check_unit_interval(x, config.source)
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
            'error': jnp.mean(squared_error(x, own.reconstruct(params, code))),
            'sparseness': jnp.mean(sparseness(code)),
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    init = lambda key, x: own.init(key, x.shape[1])  # noqa: E731
    return train.optimise(init, loss, optax.adam(schedule), evaluate)


def sparseness(code):
    """1 - (mean |h|)^2 / mean h^2 over units, in [0, 1): 0 where all are equal, whatever the scale.

    Source  Treves & Rolls 1991. Gaussian codes have 0.36.
    """
    energy = jnp.mean(code**2, axis=1)
    return 1 - jnp.mean(jnp.abs(code), axis=1) ** 2 / jnp.where(energy > 0, energy, 1)


def accuracies(config, encode, data):
    """{name: accuracy}: by number of labels, and on noisy pictures; C is chosen on held-out ones."""
    from sklearn.linear_model import LogisticRegression

    x, labels, extra = np.asarray(data.resident), data.extra['labels'], data.extra
    noise = np.random.default_rng(0).normal(size=data.evaluation.shape)
    noisy = np.clip(data.evaluation + config.noise * noise, 0, 1).astype(np.float32)
    codes = {
        'train': encode(x), 'valid': encode(extra['valid'][0]), 'test': encode(data.evaluation),
        'noisy': encode(noisy),
    }  # fmt: skip
    mean, std = codes['train'].mean(0), codes['train'].std(0)
    z = {name: np.asarray((v - mean[None]) / (std[None] + 1e-3)) for name, v in codes.items()}
    right = {
        'valid': extra['valid'][1],
        'test': extra['test_labels'],
        'noisy': extra['test_labels'],
    }
    found = {}
    for wanted in config.labels:
        n = min(wanted, len(x))
        values = []
        for draw in range(1 if n == len(x) else config.draws):
            rows = np.random.default_rng((config.seed, draw)).permutation(len(x))[:n]
            best = None
            for penalty in (1e-3, 1e-2, 1e-1, 1.0):
                fit = LogisticRegression(C=penalty, tol=1e-2, max_iter=300)
                fit.fit(z['train'][rows], labels[rows])
                own = {name: float(np.mean(fit.predict(z[name]) == right[name])) for name in right}
                if best is None or own['valid'] > best['valid']:
                    best = own
            values.append(best)
        found[f'accuracy_{n}'] = float(np.mean([v['test'] for v in values]))
        found['accuracy_noisy'] = float(np.mean([v['noisy'] for v in values]))
    return found


def report(config, state, data):
    from lecture4.figures import dictionary, images

    own, params, shape = member(config), state.params, data.extra['shape']
    metrics = {name: float(v) for name, v in build(config).evaluate(state, data.evaluation).items()}
    encode = jax.jit(functools.partial(own.encode, params))
    metrics |= accuracies(config, encode, data)
    pixels = accuracies(config, jnp.asarray, data)
    rows = tuple(
        (name.replace('_', ' '), value, pixels.get(name, '')) for name, value in metrics.items()
    )
    few = np.linspace(0, len(data.evaluation) - 1, 12).astype(int)
    x = data.evaluation[few]
    encoder = params.encoder
    first = encoder[0] if isinstance(encoder[0], network.Dense) else encoder
    weight = np.asarray(first[0])
    return train.Report(
        metrics=metrics,
        tables=(
            train.Table(
                config.member,
                ('', config.member, 'raw pixels'),
                rows,
                f'{config.width} numbers a picture, {config.steps} steps of {config.batch_size}.',
            ),
        ),
        pictures={
            'reconstructions': train.Picture(
                images.rows(
                    {
                        'picture': x.reshape(-1, *shape),
                        config.member: np.asarray(
                            own.reconstruct(params, own.encode(params, x))
                        ).reshape(-1, *shape),
                    }
                )
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
