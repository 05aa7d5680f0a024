"""A deep autoencoder against principal components and a shallow one of equal code size.

Hinton & Salakhutdinov, Science 2006. Logistic or other units, a linear code, the cross-entropy of
pixels; test error squared, summed over pixels, which is the paper's. With --pretraining each layer
is first trained alone, as a denoising autoencoder on the codes below (the paper used RBMs).

Run     python -m experiments.autoencoders.deep
        python -m experiments.autoencoders.deep --preset mnist
        python -m experiments.autoencoders.deep --preset mnist_start --sweep start
Cost    mnist 3.5 minutes of one core (AMD EPYC).
Published  MNIST, 30 numbers: 3.00 (PCA 13.87), recalled.
Ours    MNIST, 10 epochs: deep 3.91, shallow 8.53, PCA 13.87. The paper's 3.00 took RBMs and a long
        fine-tuning; mnist_long gives it 200 epochs.
        digits, --sweep start, error after 3000 steps (PCA 1.99): sigmoid units by SGD 4.70, by Adam 1.75,
        by Adam after layers alone 1.73, rectified units by Adam 1.23. With Adam it trains from random weights,
        and pretraining buys next to nothing.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import deep, denoising, linear, network
from lecture4.data import images as image_data
from lecture4.ops.losses import bernoulli_nll, check_unit_interval, squared_error

ACTIVATIONS = {'sigmoid': jax.nn.sigmoid, 'relu': jax.nn.relu, 'tanh': jnp.tanh}
DIRECTIONS = {'adam': optax.scale_by_adam, 'sgd': optax.identity}
PUBLISHED = {'PCA': '13.87', 'deep': '3.00'}  # of 30 numbers a picture, MNIST; recalled


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of training all layers together, after the pre-training.
    steps: int = 3000
    batch_size: int = 100
    # Where pictures come from: digits, mnist, omniglot, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Widths of the encoder, the code last; the decoder mirrors them.
    widths: tuple[int, ...] = (256, 64, 6)
    # Units of all layers but the code and the output.
    activation: Literal['sigmoid', 'relu', 'tanh'] = 'relu'
    # Steps that each layer is trained alone first; part of --steps.
    pretraining: int = 0
    # Share of values set to 0 while layers are trained alone.
    masking: float = 0.25
    # How weights are updated.
    optimizer: Literal['adam', 'sgd'] = 'adam'
    # Learning rate of layers alone, and its peak after that; it falls to 0 along a half cosine.
    learning_rate: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'widths', min(self.widths, default=0) >= 1, 'one width or more')
        train.require(self, 'masking', 0 <= self.masking <= 1, 'between 0 and 1')
        fits = 0 <= self.pretraining * len(self.widths) < self.steps
        train.require(self, 'pretraining', fits, f'0 or less than steps / {len(self.widths)}')


MNIST = {
    'source': 'mnist',
    'widths': (1000, 500, 250, 30),
    'steps': 6000,
    'steps_per_call': 100,
    'log_every': 100,
    'evaluate_every': 600,
    'save_every': 3000,
}
PRESETS = {
    'smoke': {'steps': 20, 'widths': (16, 4), 'pretraining': 5},
    'mnist': MNIST,
    'mnist_start': {**MNIST, 'steps': 1800},  # 3 epochs: enough to see what trains at all
    'mnist_long': {**MNIST, 'steps': 120_000, 'save_every': 6000},  # 200 epochs, for a GPU
}
SWEEPS = {
    # Does it train from random weights? Rates as good as we found for each.
    'start': (
        {'activation': 'sigmoid', 'optimizer': 'sgd', 'learning_rate': 0.01},
        {'activation': 'sigmoid', 'optimizer': 'adam'},
        {'activation': 'sigmoid', 'optimizer': 'adam', 'pretraining': 300},
        {'activation': 'relu', 'optimizer': 'adam'},
    ),
    'code': train.grid(widths=((256, 64, 2), (256, 64, 6), (256, 64, 16)), seed=(0, 1)),
}


def data(config):
    found = image_data.load(config.source, seed=config.seed, **config.data_kwargs())
    x, test = (
        np.asarray(check_unit_interval(a.reshape(len(a), -1), config.source))
        for a in (found.train_images, found.test_images)
    )
    shape = found.train_images.shape[1:3]
    return train.in_memory(x, config.batch_size, seed=config.seed, evaluation=test, extra=shape)


def build(config):
    activation = ACTIVATIONS[config.activation]
    scale = 'he' if config.activation == 'relu' else 'glorot'
    corrupt = functools.partial(denoising.masking, mask_rate=config.masking)

    def layer_loss(params, x, key, i):
        each = deep.layer_loss(params['deep'], x, key, i, activation=activation, corrupt=corrupt)
        return jnp.mean(each)

    def whole_loss(params, x, key):
        each = deep.loss(params['deep'], x, activation=activation)
        return jnp.mean(each) + jnp.mean(deep.loss(params['shallow'], x))

    n_alone = len(config.widths) if config.pretraining else 0
    alone = [functools.partial(layer_loss, i=i) for i in range(n_alone)]
    rate = optax.cosine_decay_schedule(
        config.learning_rate, config.steps - n_alone * config.pretraining
    )
    start, step = deep.phases(
        [*alone, whole_loss],
        config.pretraining,
        DIRECTIONS[config.optimizer](),
        lambda count: rate(jnp.maximum(count, 0)),
    )

    def init(key, x):
        deep_key, shallow_key = jax.random.split(key)
        return start(
            {
                'deep': network.init_autoencoder(
                    deep_key, (x.shape[1], *config.widths), scale=scale
                ),
                'shallow': network.init_autoencoder(shallow_key, (x.shape[1], config.widths[-1])),
            }
        )

    def evaluate(state, x):
        found = {}
        for name, params in state.params.items():
            logits = deep.decode(params, deep.encode(params, x, activation), activation)
            found[f'{name}_error'] = jnp.mean(squared_error(x, jax.nn.sigmoid(logits)))
            found[f'{name}_cross_entropy'] = jnp.mean(bernoulli_nll(logits, x))
        return found

    return train.Task(init, step, evaluate)


def report(config, state, data):
    from lecture4.figures import images

    x, shape, k = data.evaluation, data.extra, config.widths[-1]
    reached = train.evaluated(build(config), state, x)
    principal = linear.principal_components(data.resident)
    reached['pca_error'] = principal.reconstruction_error(x, k)
    activation = ACTIVATIONS[config.activation]
    few = x[np.linspace(0, len(x) - 1, 12).astype(int)]
    shown = {'picture': few}
    for name, params in state.params.items():
        code = deep.encode(params, few, activation)
        shown[name] = np.asarray(jax.nn.sigmoid(deep.decode(params, code, activation)))
    shown['PCA'] = principal.reconstruct(few, k)
    published = PUBLISHED if config.source == 'mnist' and k == 30 else {}
    architecture = '-'.join(map(str, config.widths))
    rows: list[tuple] = [(f'PCA, {k}', reached['pca_error'], '', published.get('PCA', ''))]
    for name, title in (('shallow', f'shallow, {k}'), ('deep', f'deep, {architecture}')):
        found = (reached[f'{name}_{measure}'] for measure in ('error', 'cross_entropy'))
        rows.append((title, *found, published.get(name, '')))
    caption = (
        'Squared error summed over pixels and cross-entropy in nats, means over the test pictures. '
        'As published, recalled: Hinton & Salakhutdinov 2006.'
    )
    columns = ('', 'squared error', 'cross-entropy', 'published')
    named = {name: np.reshape(v, (-1, *shape)) for name, v in shown.items()}
    return train.Report(
        metrics=reached,
        tables=(train.Table('Test error', columns, tuple(rows), caption),),
        pictures={
            'reconstructions': train.Picture(
                images.rows(named), f'Test pictures through {k} numbers.'
            )
        },
        summary=f'With {k} numbers a picture the deep autoencoder errs by '
        f'{reached["deep_error"]:.2f}, the shallow one by {reached["shallow_error"]:.2f}, PCA by '
        f'{reached["pca_error"]:.2f}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
