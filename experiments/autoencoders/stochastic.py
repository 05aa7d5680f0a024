"""Gradient estimators for stochastic encoders (Williams, 1992; Kingma & Welling, 2014; Kool et al., 2019).

An autoencoder of binary digits, h ~ p_encoder(h | x) and x ~ p_decoder(x | h), with Bernoulli, Gaussian or
categorical latent variables. The bound E log p_decoder(x | h) - KL(p_encoder || prior) is maximized
through the sample where that is differentiable (pathwise), else by the score function, with or without
the mean of the other samples as a baseline (leave-one-out). At the trained parameters the estimators
are compared with the exact gradient (by enumeration of all latent states; for Gaussian latent variables
with the least noisy estimator).

Run:      python -m experiments.autoencoders.stochastic
          python -m experiments.autoencoders.stochastic --preset categorical      (or gaussian)
Hardware: one core (AMD EPYC): bernoulli 1 minute, gaussian 2, categorical 45 seconds
Results:  digits, 10 latent variables (categorical: 3 of 10 states); nats per test image; noise of a gradient with 4
samples, relative to its norm; squared bias of the mean of 400 gradients over its expectation, 1 if unbiased

          | latent      | ELBO   | k = 50 | score | leave-one-out | pathwise | bias ratio |
          |-------------|--------|--------|-------|---------------|----------|------------|
          | Bernoulli   | -23.65 | -23.37 | 5.2   | 0.61          |          | 0.9 to 1.5 |
          | Gaussian    | -23.30 | -23.05 | 21    | 3.1           | 0.83     | 0.8 to 1.4 |
          | categorical | -23.37 | -23.04 | 6.7   | 0.75          |          | 0.7 to 1.3 |
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import MinLen

from lecture4 import train
from lecture4.autoencoder import (
    binarization,
    estimator_comparison,
    importance_sampling,
    stochastic,
)
from lecture4.autoencoder import vae as variational
from lecture4.data.images import vectors

TEST_SEED = 2**31 - 1  # seed of the binarization of the test set: the same in every run
NUM_IMAGES = 50  # number of test images on which gradients are measured


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 4000
    batch_size: train.AtLeast1 = 100
    steps_per_call: train.AtLeast1 = 100
    # Source of images; every batch samples binary pixels with their gray level as the probability of 1.
    source: str = 'digits'
    # Distribution of the latent variables.
    latent: Literal['bernoulli', 'gaussian', 'categorical'] = 'bernoulli'
    # Number of latent variables.
    latent_dim: train.AtLeast1 = 10
    # Number of states of a categorical latent variable.
    num_states: train.AtLeast2 = 10
    # Number of units of each hidden layer of the encoder; the decoder mirrors them.
    hidden_dims: tuple[train.AtLeast1, ...] = (100,)
    # Gradient estimator; auto takes the least noisy one that the latent variables allow.
    estimator: Literal['auto', 'pathwise', 'score', 'leave-one-out'] = 'auto'
    # Number of latent samples per image in training.
    num_samples: train.AtLeast1 = 4
    # Learning rate of Adam.
    learning_rate: train.Positive = 1e-3
    # Number of gradients from which the mean and the noise of an estimator are measured.
    num_gradients: train.AtLeast2 = 400
    # Numbers of latent samples per image for which estimators are measured.
    measured_samples: Annotated[tuple[train.AtLeast2, ...], MinLen(1)] = (2, 4, 16)

    def __post_init__(self):
        super().__post_init__()
        is_gaussian = self.latent == 'gaussian' or self.estimator != 'pathwise'
        train.require(self, 'latent', is_gaussian, 'gaussian with --estimator pathwise')
        has_others = self.num_samples > 1 or self.estimator != 'leave-one-out'
        train.require(self, 'num_samples', has_others, 'at least 2 with --estimator leave-one-out')


METRICS = (
    train.Metric('elbo', 'nats', 'higher', 'evidence lower bound', primary=True),
    train.Metric('loss', 'nats', 'lower', 'training loss'),
    train.Metric('kl', 'nats', '', 'KL divergence'),
    train.Metric('importance_50', 'nats', 'higher', 'importance-weighted bound, k = 50'),
    train.Metric('noise', '', 'lower', 'noise'),
    train.Metric('bias_ratio', '', '', 'bias ratio'),
)
PRESETS = {
    'smoke': {'steps': 100, 'hidden_dims': (16,), 'latent_dim': 3, 'num_gradients': 20}
    | {'measured_samples': (2,)},
    'gaussian': {'latent': 'gaussian'},
    'categorical': {'latent': 'categorical', 'latent_dim': 3},
}
SWEEPS = {
    'estimator': train.grid(estimator=('score', 'leave-one-out'), seed=(0, 1, 2)),
    'latent': train.grid(latent=('bernoulli', 'gaussian')),
}


def data(config):
    loaded = vectors.load_splits(config.source, in_unit_interval=True, **config.data_kwargs())
    binary = binarization.binarize_once(loaded.test, 'dynamic', TEST_SEED)
    return train.in_memory(
        loaded.train,
        config.batch_size,
        seed=config.seed,
        evaluation=binary,
        spec=train.Spec(binary.shape[1:], constants={'image_shape': loaded.image_shape[:2]}),
        augment=binarization.binarize,
    )


def model(config, spec) -> variational.Model:
    """The networks and distributions of a config."""
    latent = {
        'bernoulli': stochastic.BERNOULLI,
        'gaussian': stochastic.GAUSSIAN,
        'categorical': stochastic.categorical(config.num_states),
    }[config.latent]
    return variational.mlp(
        spec.shape[0], config.hidden_dims, config.latent_dim, latent=latent, activation=jnp.tanh
    )


def build(config, spec):
    vae = model(config, spec)
    estimator = None if config.estimator == 'auto' else config.estimator

    def loss(params, x, key):
        parts = variational.bound(
            vae, params, x, key, n_samples=config.num_samples, estimator=estimator
        )
        return variational.loss(parts), {'kl': parts.kl.sum(1).mean()}

    def evaluate(params, x):
        key = jax.random.key(0)
        importance = importance_sampling.importance_bound(
            vae, params, x, key, n_samples=50, chunk=10
        )
        return {
            'elbo': variational.bound(vae, params, x, key).elbo.mean(),
            'importance_50': importance.mean(),
        }

    adam = optax.adam(config.learning_rate)
    return train.optimize(lambda key, x: vae.init(key), loss, adam, evaluate)


def apply(config, spec):
    vae, shape = model(config, spec), spec.constants['image_shape']
    return train.on_params(variational.image_functions(vae, shape))


def report(config, state, data):
    from lecture4.figures import images

    x, vae = jnp.asarray(data.evaluation), model(config, data.spec)
    metrics = train.evaluate(build(config, data.spec), state, x)
    n_states = {'bernoulli': 2, 'categorical': config.num_states}.get(config.latent)
    states = stochastic.enumerate_states(config.latent_dim, n_states) if n_states else None
    records, reference = estimator_comparison.compare(
        vae,
        state.params,
        x[:NUM_IMAGES],
        samples=config.measured_samples,
        num_gradients=config.num_gradients,
        states=states,
    )
    counts = {'num_gradients': config.num_gradients, 'num_images': NUM_IMAGES}
    caption = estimator_comparison.CAPTION.format(reference=reference, **counts)
    tiles = variational.sample_reconstructions(vae, state.params, jax.random.key(5), x[:12])
    tiles = np.asarray(tiles).reshape(-1, *data.spec.constants['image_shape'])
    rows = ('image', *(f'mean of p(x | h{i})' for i in (1, 2, 3)), 'sample of p(x | h3)')
    table = train.Table('Gradient estimators', records, ('estimator', 'samples'), caption=caption)
    figure = train.Figure(
        images.grid(tiles, 12, row_labels=rows),
        'Means of p_decoder(x | h) for three samples h1, h2, h3 of p_encoder(h | x) of each test image, and a '
        'sample of pixels for the last.',
    )
    summary = (
        f'Evidence lower bound {metrics["elbo"]:.2f}, importance-weighted (k = 50) '
        f'{metrics["importance_50"]:.2f} nats per test image, {config.latent_dim} {config.latent} '
        'latent variables.'
    )
    return train.Report(metrics, (table,), {'reconstructions': figure}, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
