"""A deep autoencoder against principal components and a shallow one of equal code size.

Hinton & Salakhutdinov, Science 2006. Logistic or other units, a linear code, the cross-entropy of
pixels; test error squared, summed over pixels, which is the paper's. With --pretraining each layer
is first trained alone, as a denoising autoencoder on the codes below (the paper used RBMs).

Run     python -m experiments.autoencoders.deep
        python -m experiments.autoencoders.deep --preset mnist
        python -m experiments.autoencoders.deep --sweep start
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import deep, denoising, network
from lecture4.data import pictures
from lecture4.ops.losses import bernoulli_nll, check_unit_interval, squared_error


@dataclasses.dataclass(frozen=True)
class Config(train.Common):
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
    # Peak of the learning rate, which falls to 0 along a half cosine.
    learning_rate: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        train.require(self, 'widths', self.widths and min(self.widths) >= 1, 'one width or more')
        train.require(self, 'masking', 0 <= self.masking <= 1, 'between 0 and 1')
        spent = self.pretraining * len(self.widths)
        train.require(
            self,
            'pretraining',
            0 <= spent < self.steps,
            f'0 or less than steps / {len(self.widths)}',
        )


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


class State(NamedTuple):
    params: dict[str, network.Autoencoder]
    opt_state: optax.OptState
    count: jax.Array


def data(config):
    found = pictures.labelled(config.source, seed=config.seed, **config.places())
    x, test = (a.reshape(len(a), -1) for a in (found.train_images, found.test_images))
    check_unit_interval(x, config.source)
    check_unit_interval(test, config.source)
    return train.in_memory(
        x,
        config.batch_size,
        seed=config.seed,
        evaluation=test,
        extra=found.train_images.shape[1:3],
    )


def build(config):
    activation = {'sigmoid': jax.nn.sigmoid, 'relu': jax.nn.relu, 'tanh': jnp.tanh}[
        config.activation
    ]
    scale = 'he' if config.activation == 'relu' else 'glorot'
    n_layers = len(config.widths)
    lengths = (config.pretraining,) * n_layers
    together = config.steps - sum(lengths)
    schedule = optax.cosine_decay_schedule(config.learning_rate, together)
    optimizer = {'adam': optax.adam, 'sgd': optax.sgd}[config.optimizer](schedule)
    corrupt = functools.partial(denoising.masking, share=config.masking)

    def init(key, x):
        d, k = x.shape[1], config.widths[-1]
        deep_key, shallow_key = jax.random.split(key)
        params = {
            'deep': network.init_autoencoder(deep_key, (d, *config.widths), scale=scale),
            'shallow': network.init_autoencoder(shallow_key, (d, k)),
        }
        return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def layer_loss(params, x, key, i):
        return jnp.mean(
            deep.layer_loss(params['deep'], x, key, i, activation=activation, corrupt=corrupt)
        )

    def whole_loss(params, x, key):
        each = deep.loss(params['deep'], x, activation=activation)
        return jnp.mean(each) + jnp.mean(deep.loss(params['shallow'], x))

    phases = [functools.partial(layer_loss, i=i) for i in range(n_layers)] + [whole_loss]

    def step(state, x, key, *, axis_name=None):
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        if config.pretraining:
            now = deep.phase(state.count, lengths)
            loss, grads = jax.lax.switch(
                now, [jax.value_and_grad(own) for own in phases], state.params, x, key
            )
            # Moments of the phase before would go on moving layers that now have no gradient.
            first = (state.count % config.pretraining == 0) & (state.count <= sum(lengths))
            opt_state = jax.tree.map(
                lambda old, new: jnp.where(first, new, old),
                state.opt_state,
                optimizer.init(state.params),
            )
        else:
            loss, grads = jax.value_and_grad(whole_loss)(state.params, x, key)
            opt_state = state.opt_state
        if axis_name is not None:
            grads, loss = jax.lax.pmean((grads, loss), axis_name)
        with jax.numpy_dtype_promotion('standard'):
            updates, opt_state = optimizer.update(grads, opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, state.count + 1), {'loss': loss}

    def evaluate(state, x):
        found = {}
        for name, params in state.params.items():
            logits = deep.decode(params, deep.encode(params, x, activation), activation)
            found[f'{name}_error'] = jnp.mean(squared_error(x, jax.nn.sigmoid(logits)))
            found[f'{name}_cross_entropy'] = jnp.mean(bernoulli_nll(logits, x))
        return found

    return train.Task(init, step, evaluate)


def pca(x, test, k):
    """Reconstructions of the test pictures by k principal components, in float64."""
    mean = x.mean(0, dtype=np.float64)
    wide = x.astype(np.float64) - mean
    V = np.linalg.eigh(wide.T @ wide)[1][:, -k:]
    return mean + (test - mean) @ V @ V.T


def report(config, state, data):
    from lecture4.figures import images

    x, shape, k = data.evaluation, data.extra, config.widths[-1]
    reached = {name: float(v) for name, v in build(config).evaluate(state, x).items()}
    principal = pca(np.asarray(data.resident), x, min(k, x.shape[1]))
    pca_error = float(((x - principal) ** 2).sum(1).mean())
    activation = {'sigmoid': jax.nn.sigmoid, 'relu': jax.nn.relu, 'tanh': jnp.tanh}[
        config.activation
    ]
    few = np.linspace(0, len(x) - 1, 12).astype(int)
    shown = {'picture': x[few]}
    for name, params in state.params.items():
        code = deep.encode(params, x[few], activation)
        shown[name] = np.asarray(jax.nn.sigmoid(deep.decode(params, code, activation)))
    shown['PCA'] = principal[few]
    paper = config.source == 'mnist' and k == 30
    architecture = '-'.join(map(str, config.widths))
    rows = (
        (f'PCA, {k}', pca_error, '', '13.87' if paper else ''),
        (f'shallow, {k}', reached['shallow_error'], reached['shallow_cross_entropy'], ''),
        (f'deep, {architecture}', reached['deep_error'], reached['deep_cross_entropy'],
         '3.00' if paper else ''),
    )  # fmt: skip
    caption = (
        'Squared error summed over pixels and cross-entropy in nats, means over the test pictures. '
        'As published, recalled: Hinton & Salakhutdinov 2006.'
    )
    named = {name: np.reshape(v, (-1, *shape)) for name, v in shown.items()}
    return train.Report(
        metrics={**reached, 'pca_error': pca_error},
        tables=(
            train.Table(
                'Test error', ('', 'squared error', 'cross-entropy', 'published'), rows, caption
            ),
        ),
        pictures={
            'reconstructions': train.Picture(
                images.rows(named), f'Test pictures through {k} numbers.'
            )
        },
        summary=f'With {k} numbers a picture the deep autoencoder errs by '
        f'{reached["deep_error"]:.2f}, the shallow one by {reached["shallow_error"]:.2f}, PCA by '
        f'{pca_error:.2f}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
