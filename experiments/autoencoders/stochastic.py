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
Results:  digits, 10 latent variables (categorical: 3 of 10 states); nats per test image; noise of a gradient
          with 4 samples, relative to its norm; deviation of the mean of 400 gradients, 1 if unbiased

          | latent      | ELBO   | k = 50 | score | leave-one-out | pathwise | deviation  |
          |-------------|--------|--------|-------|---------------|----------|------------|
          | Bernoulli   | -23.62 | -23.38 | 5.3   | 0.63          |          | 0.8 to 1.6 |
          | Gaussian    | -23.30 | -23.05 | 21    | 3.1           | 0.83     | 0.8 to 1.4 |
          | categorical | -23.37 | -23.04 | 6.7   | 0.75          |          | 0.7 to 1.3 |
"""

import dataclasses
import functools
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import MinLen

from lecture4 import train
from lecture4.autoencoder import importance_sampling, stochastic
from lecture4.autoencoder import vae as variational
from lecture4.data.images import load_images
from lecture4.ops.losses import check_unit_interval

TEST_SEED = 2**31 - 1  # of the binarization of the test set: the same for every seed
NUM_IMAGES = 50  # of the test set, on which gradients are measured


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 4000
    batch_size: train.AtLeast1 = 100
    steps_per_call: train.AtLeast1 = 100
    # Source of images; every visit samples pixels 0 or 1 with their level as the probability of 1.
    source: str = 'digits'
    # Distribution of the latent variables.
    latent: Literal['bernoulli', 'gaussian', 'categorical'] = 'bernoulli'
    # Number of latent variables.
    latent_dim: train.AtLeast1 = 10
    # Number of states of a categorical latent variable.
    num_states: train.AtLeast2 = 10
    # Units of the encoder's hidden layers; the decoder is the mirror image.
    hidden_dims: tuple[train.AtLeast1, ...] = (100,)
    # Gradient estimator; auto takes the least noisy one that the latent variables allow.
    estimator: Literal['auto', 'pathwise', 'score', 'leave-one-out'] = 'auto'
    # Latent samples per image in training.
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
    train.Metric('deviation', '', '', 'deviation'),
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
    images, test = (
        np.asarray(load_images(config.source, split, **config.data_kwargs()).images)
        for split in ('train', 'test')
    )
    pixels, test_pixels = (
        np.asarray(check_unit_interval(a.reshape(len(a), -1), config.source))
        for a in (images, test)
    )
    binary = variational.binarize(jax.random.key(TEST_SEED), jnp.asarray(test_pixels))
    result = train.in_memory(
        pixels,
        config.batch_size,
        seed=config.seed,
        evaluation=np.asarray(binary),
        spec=train.Spec(pixels.shape[1:], constants={'image_shape': test.shape[1:3]}),
    )

    def prepare(device_arrays, batch, key):
        return variational.binarize(key, result.prepare(device_arrays, batch, key))

    return dataclasses.replace(result, prepare=prepare)


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

    def encode(state, images):
        return vae.latent.mean(vae.encode(state.params, images.reshape(len(images), -1)))

    def decode(state, h):
        return vae.pixels.mean(vae.decode(state.params, h)).reshape(-1, *shape)

    return {'encode': encode, 'decode': decode}


def report(config, state, data):
    from lecture4.figures import images

    x, vae = jnp.asarray(data.evaluation), model(config, data.spec)
    metrics = train.evaluate(build(config, data.spec), state, x)
    records, reference = compare_estimators(config, vae, state.params, x[:NUM_IMAGES])
    caption = (
        f'Gradient in all parameters, {config.num_gradients} samples of it at the trained parameters, '
        f'{NUM_IMAGES} images. Noise: root of the total variance over the norm of the gradient. Deviation: '
        f'squared distance of the mean from {reference}, over what its variance predicts; near 1 if '
        'the estimator is unbiased.'
    )
    rows = ('image', *['mean of p(x | h)'] * 3, 'sample of p(x | h)')
    tiles = np.asarray(sample_reconstructions(vae, state.params, x[:12]))
    tiles = tiles.reshape(-1, *data.spec.constants['image_shape'])
    index = ('estimator', 'samples')
    return train.Report(
        metrics,
        (train.Table('Gradient estimators', records, index, caption=caption),),
        {
            'reconstructions': train.Figure(
                images.grid(tiles, 12, row_labels=rows),
                'Means of p_decoder(x | h) for three samples of p_encoder(h | x) of every test image, '
                'and a sample of pixels for the last.',
            )
        },
        f'Evidence lower bound {metrics["elbo"]:.2f}, importance-weighted (k = 50) '
        f'{metrics["importance_50"]:.2f} nats per test image, {config.latent_dim} {config.latent} '
        'latent variables.',
    )


def compare_estimators(config, vae, params, x):
    """Noise and deviation of every estimator: records, and what the deviation is from."""
    names: list[stochastic.Estimator] = ['score', 'leave-one-out']
    if vae.latent.pathwise:
        names.append('pathwise')

    def measure(params, key, name: stochastic.Estimator, n: int):
        def gradient(key):
            bound = functools.partial(variational.bound, vae, n_samples=n, estimator=name)
            return jax.grad(lambda params: bound(params, x, key).elbo.mean())(params)

        return stochastic.gradient_moments(gradient, key, config.num_gradients)

    moments = {}
    for name in names:
        for n in config.measured_samples:
            run = jax.jit(functools.partial(measure, name=name, n=n))
            moments[name, n] = run(params, jax.random.key(n))
    n_states = {'bernoulli': 2, 'categorical': config.num_states}.get(config.latent)
    states = stochastic.enumerate_states(config.latent_dim, n_states) if n_states else None
    if states is None:  # the least noisy estimator stands for the exact gradient
        name, n = names[-1], config.measured_samples[-1]
        exact, variance = moments.pop((name, n))
        reference_variance = variance / config.num_gradients
        reference = f'the mean of {name} with {n} samples'
    else:

        def bound(params):
            return variational.enumerated_bound(vae, params, x, states).mean()

        exact, reference_variance = jax.jit(jax.grad(bound))(params), 0.0
        reference = 'the sum over all latent states'
    records, squared_norm = [], optax.tree.norm(exact, squared=True)
    for (name, n), (mean, variance) in moments.items():
        distance = optax.tree.norm(jax.tree.map(jnp.subtract, mean, exact), squared=True)
        expected = variance / config.num_gradients + reference_variance
        noise, deviation = float(jnp.sqrt(variance / squared_norm)), float(distance / expected)
        records.append({'estimator': name, 'samples': n, 'noise': noise, 'deviation': deviation})
    return records, reference


def sample_reconstructions(vae, params, x):
    """Images, three decoded samples of their latent variables, pixels sampled for the last: [5, n, d]."""
    outputs = vae.encode(params, x)
    keys = jax.random.split(jax.random.key(5), 4)
    decoded = [vae.decode(params, vae.latent.sample(key, outputs)) for key in keys[:3]]
    return [x, *map(vae.pixels.mean, decoded), vae.pixels.sample(keys[3], decoded[-1])]


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
