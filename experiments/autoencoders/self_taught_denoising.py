"""Self-taught learning by a denoising autoencoder (after Raina, Battle, Lee, Packer & Ng, ICML 2007).

One logistic layer learns to fill in masked pixels of unlabeled images (Vincent et al. 2008); a linear SVM is then
trained on the codes of a few labeled images of other classes. Raw pixels and the same layer with random weights get
the same training sets and the same SVM.

Run:      python -m experiments.autoencoders.self_taught_denoising   (digits 0-4 for 5-9, no file)
          python -m experiments.autoencoders.self_taught_denoising --preset handwriting --manual_dir PATH
Hardware: CPU, half a minute of processor time; handwriting 3.7 minutes
Results:  test accuracy in %, 20 trials

          | handwriting, labels | 100  | 500  | 1000 |
          |---------------------|------|------|------|
          | raw pixels          | 73.8 | 85.0 | 87.3 |
          | random weights      | 72.9 | 85.1 | 87.3 |
          | denoising           | 76.8 | 88.4 | 90.6 |
          | raw + denoising     | 75.8 | 87.0 | 89.4 |
          | sparse codes        | 53.1 | 74.3 | 79.9 |

          Omniglot's train split for MNIST, 512 latent units, standard errors 0.1 to 0.4; sparse codes are those
          of sparse_coding.self_taught. On digits (585 unlabeled images) learning does not help:

          | digits, labels      | 5    | 10   | 25   | 100  |
          |---------------------|------|------|------|------|
          | raw pixels          | 72.7 | 82.5 | 87.6 | 93.0 |
          | random weights      | 72.9 | 82.2 | 88.3 | 93.5 |
          | denoising           | 64.8 | 75.0 | 83.3 | 91.2 |
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import registry
from lecture4.data import images
from lecture4.data.images import vectors
from lecture4.features import image_accuracy, label_efficiency, self_taught
from lecture4.ops.losses import squared_error


@dataclasses.dataclass(frozen=True)
class Config(train.SquareImages):
    steps: train.AtLeast1 = 3000
    batch_size: train.AtLeast1 = 100
    # Source of unlabeled images, resized to the labeled ones: digits, mnist, omniglot, dir:PATH, npz:PATH, csv:PATH.
    unlabeled: str = 'digits'
    # Source of labeled images, which have to be square.
    labeled: str = 'digits'
    # Classes of the unlabeled set to use; by default all.
    unlabeled_classes: tuple[train.AtLeast0, ...] = (0, 1, 2, 3, 4)
    # Classes of the labeled set to use; by default all.
    labeled_classes: tuple[train.AtLeast0, ...] = (5, 6, 7, 8, 9)
    # Largest number of unlabeled images to use; a tenth of them is held out for evaluation.
    num_signals: train.AtLeast2 = 30_000
    # Number of latent units.
    latent_dim: train.AtLeast1 = 128
    # Fraction of pixels set to 0 in training.
    mask_rate: train.Fraction = 0.5
    # Peak learning rate, with cosine decay to 0.
    learning_rate: train.Positive = 1e-3
    # Numbers of labels per class.
    labels_per_class: train.Evaluation[train.Ints] = (1, 2, 5, 20)
    # Number of training sets sampled for each number of labels.
    num_trials: train.AtLeast1 = 20
    # Number of labeled images per class from which small training sets are sampled.
    candidates_per_class: train.AtLeast1 = 500


METRICS = (
    train.Metric('denoising_accuracy', 'fraction', 'higher', 'accuracy of codes', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy per masked image'),
    train.Metric('error', '', 'lower', 'squared error per unmasked image'),
)
PRESETS = {
    'smoke': {'steps': 20, 'latent_dim': 16, 'labels_per_class': (2,), 'num_trials': 2},
    'handwriting': {'unlabeled': 'omniglot', 'labeled': 'mnist', 'unlabeled_classes': ()}
    | {'labeled_classes': (), 'latent_dim': 512, 'steps': 6000, 'steps_per_call': 200}
    | {'labels_per_class': (10, 50, 100)},
}
SWEEPS = {
    'mask_rate': train.grid(mask_rate=(0.0, 0.25, 0.5, 0.75), seed=(0, 1)),
    'latent_dim': train.grid(latent_dim=(128, 256, 512, 1024)),
}


def data(config):
    options = {'seed': config.seed, **config.data_kwargs()}
    n, classes = config.candidates_per_class, config.labeled_classes
    task = images.load(config.labeled, classes=classes, candidates_per_class=n, **options)
    train.check_label_counts(task, config.labels_per_class, config.labeled)
    n, classes = config.num_signals, config.unlabeled_classes
    options = train.ImageOptions.data_kwargs(config) | {'seed': config.seed, 'classes': classes}
    x = vectors.load_unlabeled_like(task.train_images, config.unlabeled, n, **options)
    num_held_out, shape = max(len(x) // 10, 1), task.train_images.shape[1:3]
    return train.in_memory(
        x[num_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=x[:num_held_out],
        spec=train.Spec(x.shape[1:], task.class_names, {'image_shape': shape}),
        report_data=task,
    )


def build(config, spec):
    model = registry.masking_denoiser(config.latent_dim, config.mask_rate)

    def init(key, x):
        return model.init(key, spec.shape[0])

    def loss(params, x, key):
        return model.loss(params, x, key), {}

    def evaluate(params, x):
        restored = model.decode(params, model.encode(params, x))
        loss = model.loss(params, x, jax.random.key(1))  # the same masks at every evaluation
        return {'loss': loss, 'error': jnp.mean(squared_error(x, restored))}

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    """Functions of a state and images in [0, 1], [n, h, w, 1] or [n, d]."""
    model = registry.masking_denoiser(config.latent_dim, config.mask_rate)

    encode = features(config, spec)['denoising']

    def reconstruct(params, x):
        return model.decode(params, encode(params, x))

    return train.on_params({'encode': encode, 'reconstruct': reconstruct})


def features(config, spec):
    """{name: (params, images [n, h, w, 1]) -> features [n, p]}."""
    model = registry.masking_denoiser(config.latent_dim, config.mask_rate)
    random = model.init(jax.random.fold_in(jax.random.key(config.seed), 1), spec.shape[0])

    def raw(params, x):
        return x.reshape(len(x), -1)

    def encode(params, x):
        return model.encode(params, raw(params, x))

    return {
        'raw pixels': raw,
        'random weights': lambda params, x: encode(random, x),
        'denoising': encode,
        'raw + denoising': lambda params, x: self_taught.with_raw(
            encode(params, x), raw(params, x)
        ),
    }


def report(config, state, data):
    from lecture4.figures import curves, dictionary
    from lecture4.figures import images as drawn

    task, spec, counts = data.report_data, data.spec, config.labels_per_class
    options = {'labels_per_class': counts, 'num_trials': config.num_trials, 'seed': config.seed}
    encoders, params = features(config, spec), state.params
    draws, _ = image_accuracy.accuracies(encoders, params, task, **options)
    caption = f'{config.num_trials} random training sets. Linear SVM, C by cross-validation on the labeled set.'
    few, shape = drawn.spaced(data.evaluation), spec.constants['image_shape']
    rows = {'unlabeled': few, 'restored': apply(config, spec)['reconstruct'](state, few)}
    # Weights of pixels that are nearly always blank stay as initialized and would hide the others.
    std = np.std(data.device_arrays, axis=0)[:, None]
    weight = std * np.asarray(params.encoder[0].weight)
    figures = {
        'accuracy': train.Figure(
            curves.label_curve(draws, counts, chance=1 / spec.num_classes),
            'Test accuracy against labels per class, mean and standard error.',
        ),
        'filters': train.Figure(
            dictionary.atoms(weight, shape, n=64, columns=16),
            'Encoder weights, times the standard deviation of their pixel.',
        ),
        'reconstructions': train.Figure(
            drawn.vector_rows(rows, shape), 'Held-out images (not masked), reconstructed.'
        ),
    }
    best = draws['denoising'][-1]
    gain = functools.partial(label_efficiency.paired_gain, best)
    summary = (
        f'With {counts[-1]} labels per class the codes gain {gain(draws["raw pixels"][-1])} points over '
        f'raw pixels and {gain(draws["random weights"][-1])} over random weights.'
    )
    table = train.label_table(draws, counts, caption=caption)
    return train.Report({'denoising_accuracy': best.mean()}, (table,), figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
