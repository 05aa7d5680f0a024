"""Autoencoder variants compared at equal latent dimension and number of steps, by the same measures.

On test images: squared error of the reconstruction, sparseness of the codes, accuracy of a linear classifier
with 100, 1000 and 10,000 labels (a smaller set: all it has), and accuracy of the last classifier on images with
Gaussian noise, on which neither the classifier nor (except `denoising`) the autoencoder was trained.

Run:      python -m experiments.autoencoders.family --sweep variants
          python -m experiments.autoencoders.family --preset mnist --sweep variants
Hardware: one core, mnist one to four minutes per variant and seed
Results:  MNIST, seed 0; accuracy in % with 100, 1000, 10,000 labels, and with 10,000 on noisy images

          | variant     | error | sparseness | 100  | 1000 | 10,000 | noisy |
          |-------------|-------|------------|------|------|--------|-------|
          | linear      | 1.15  | 0.37       | 68.9 | 87.2 | 91.2   | 77.5  |
          | plain       | 2.36  | 0.28       | 70.5 | 88.0 | 91.6   | 45.2  |
          | l1          | 1.67  | 0.42       | 69.0 | 87.7 | 91.6   | 50.1  |
          | topk        | 7.27  | 0.93       | 75.0 | 91.6 | 95.0   | 83.1  |
          | denoising   | 16.42 | 0.42       | 77.0 | 90.1 | 93.5   | 59.5  |
          | contractive | 7.66  | 0.61       | 78.1 | 90.7 | 93.8   | 19.0  |
          | deep        | 0.85  | 0.37       | 73.6 | 88.6 | 92.0   | 49.0  |
          | variational | 7.69  | 0.76       | 53.5 | 88.1 | 93.9   | 46.1  |

          The reconstruction error does not predict the accuracy. Top-k codes are the most accurate and the most
          robust to noise; a contractive code is flat near images, and noisy images are not near.
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
from lecture4.data.images import vectors
from lecture4.features import linear_probe
from lecture4.ops.losses import squared_error

VARIANTS = registry.NAMES


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 3000
    batch_size: train.AtLeast1 = 100
    # Source of labeled images: digits, mnist, dir:PATH, npz:PATH, csv:PATH.
    source: str = 'digits'
    # Autoencoder variant.
    variant: Literal[VARIANTS] = 'plain'  # pyright: ignore[reportInvalidTypeForm]
    # Latent dimension of every variant.
    latent_dim: train.AtLeast1 = 64
    # Peak learning rate, with cosine decay to 0.
    learning_rate: train.Positive = 3e-3
    # Weight of the L1 penalty of `l1`.
    l1_penalty: train.NonNegative = 0.02
    # Number of units that `topk` keeps.
    k: train.AtLeast1 = 12
    # Fraction of pixels set to 0 by `denoising`.
    mask_rate: train.Fraction = 0.3
    # Weight of ||dh/dx||^2 in `contractive`.
    contraction_penalty: train.NonNegative = 0.1
    # Numbers of labels for the classifier; a number above the size of the training set means all of it.
    num_labels: train.Ints = (100, 1000, 10_000)
    # Number of labeled sets sampled for each number of labels except the whole set.
    num_trials: train.Evaluation[train.AtLeast1] = 5
    # Candidate values of C for logistic regression, chosen on held-out images.
    Cs: train.Floats = (1e-3, 1e-2, 1e-1, 1.0)
    # Standard deviation of the noise added to images in the robustness test.
    noise_std: train.NonNegative = 0.3

    def __post_init__(self):
        super().__post_init__()
        limit = f'at most --latent_dim {self.latent_dim}'
        train.require(self, 'k', self.k <= self.latent_dim, limit)
        train.require(self, 'num_labels', min(self.num_labels) >= 10, 'each at least 10')


METRICS = (
    train.Metric(
        'full_accuracy', 'fraction', 'higher', 'accuracy with the most labels', primary=True
    ),
    train.Metric('accuracy', 'fraction', 'higher', 'accuracy'),
    train.Metric('noisy_accuracy', 'fraction', 'higher', 'accuracy with noise'),
    train.Metric('error', '', 'lower', 'reconstruction error'),
    train.Metric('sparseness', '', '', 'sparseness'),
    train.Metric(
        'loss', '', 'lower', 'training loss', depends_on=('l1_penalty', 'contraction_penalty')
    ),
)
PRESETS = {
    'smoke': {'steps': 20, 'num_labels': (100,), 'num_trials': 1, 'Cs': (0.1,)},
    'mnist': {'source': 'mnist', 'latent_dim': 256, 'k': 25, 'learning_rate': 1e-3, 'steps': 6000}
    | {'contraction_penalty': 0.3, 'mask_rate': 0.5, 'steps_per_call': 100},
}
SWEEPS = {
    'variants': train.grid(variant=VARIANTS, seed=(0, 1, 2)),
    'once': train.grid(variant=VARIANTS),
}


def variant_of(config) -> registry.Variant:
    names = ('l1_penalty', 'k', 'mask_rate', 'contraction_penalty')
    options = {name: getattr(config, name) for name in names}
    return registry.by_name(config.variant, config.latent_dim, **options)


def data(config):
    options = {'seed': config.seed, **config.data_kwargs()}
    loaded = vectors.load_labeled(config.source, **options)
    rows = np.random.default_rng(config.seed).permutation(len(loaded.train))
    x, labels = loaded.train[rows], loaded.train_labels[rows].astype(np.int32)
    n = len(x) // 6
    constants = {'image_shape': loaded.image_shape[:2]}
    return train.in_memory(
        x[n:],
        config.batch_size,
        seed=config.seed,
        evaluation=loaded.test,
        spec=train.Spec(x.shape[1:], loaded.class_names, constants),
        report_data={
            'train': (x[n:], labels[n:]),
            'valid': (x[:n], labels[:n]),
            'test_labels': loaded.test_labels.astype(np.int32),
        },
    )


def build(config, spec):
    variant = variant_of(config)

    def init(key, x):
        return variant.init(key, x.shape[1])

    def loss(params, x, key):
        return variant.loss(params, x, key), {}

    def evaluate(params, x):
        code = variant.encode(params, x)
        return {
            'error': jnp.mean(squared_error(x, variant.decode(params, code))),
            'sparseness': jnp.mean(sparse.sparseness(code)),
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    variant = variant_of(config)
    return train.on_params({'encode': variant.encode, 'decode': variant.decode})


def accuracies(config, name, encode, data):
    """Records of accuracy by number of labels, and on noisy images for the largest number."""
    noise = np.random.default_rng(0).normal(size=data.evaluation.shape)
    noisy = np.clip(data.evaluation + config.noise_std * noise, 0, 1).astype(np.float32)
    tests = {'accuracy': data.evaluation, 'noisy_accuracy': noisy}
    names = ('num_labels', 'num_trials', 'Cs', 'seed')
    options = {name: getattr(config, name) for name in names}
    return linear_probe.label_records(name, encode, tests=tests, **data.report_data, **options)


def report(config, state, data):
    from lecture4.figures import dictionary, images

    variant, params = variant_of(config), state.params
    shape = data.spec.constants['image_shape']
    values = train.evaluate(build(config, data.spec), state, data.evaluation)
    encode = jax.jit(functools.partial(variant.encode, params))
    ours = accuracies(config, config.variant, encode, data)
    records = ours + accuracies(config, 'raw pixels', jnp.asarray, data)
    x = images.spaced(data.evaluation)
    restored = variant.decode(params, variant.encode(params, jnp.asarray(x)))
    rows = {'image': x, config.variant: restored}
    weight = np.asarray(params.encoder[0].weight)
    figures = {
        'reconstructions': train.Figure(
            images.vector_rows(rows, shape), 'Test images and their reconstructions.'
        ),
        'filters': train.Figure(
            dictionary.atoms(weight, shape, n=64, columns=16), 'Weights of the first layer.'
        ),
    }
    caption = f'{config.latent_dim} latent variables, {config.steps} steps of {config.batch_size}.'
    index, title = ('features', 'num_labels'), 'Linear classifier on the codes'
    table = train.Table(title, records, index, caption=caption)
    accuracy = float(ours[-1]['accuracy'].mean())
    summary = (
        f'{config.variant}: error {values["error"]:.3g}, sparseness {values["sparseness"]:.2f}, '
        f'accuracy {accuracy:.1%} with {ours[-1]["num_labels"]} labels.'
    )
    return train.Report(values | {'full_accuracy': accuracy}, (table,), figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
