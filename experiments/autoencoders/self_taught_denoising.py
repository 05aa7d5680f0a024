"""Self-taught learning by a denoising autoencoder (after Raina, Battle, Lee, Packer & Ng, ICML 2007).

The features of Vincent et al. 2008 take the place of sparse codes. One logistic layer learns to fill in
masked pixels of unlabeled images; its code then describes images of other classes, of which few have
labels. A linear SVM learns from those, its C chosen by cross-validation on them alone. Raw pixels and
the same layer with random weights get the same training sets and the same SVM: without the random
weights nothing would show that the learning helps.

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

          Omniglot's train split at 28 x 28 for MNIST, 512 latent units, standard errors 0.1 to 0.4. The
          sparse codes are those of sparse_coding.self_taught on the same two sets.

          | digits, labels      | 5    | 10   | 25   | 100  |
          |---------------------|------|------|------|------|
          | raw pixels          | 72.7 | 82.5 | 87.6 | 93.0 |
          | random weights      | 72.9 | 82.2 | 88.3 | 93.5 |
          | denoising           | 64.8 | 75.0 | 83.3 | 91.2 |

          On digits there are only 585 unlabeled images, and learning does not help.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import registry
from lecture4.data import images
from lecture4.features import label_efficiency, self_taught
from lecture4.ops.losses import check_unit_interval, squared_error


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 3000
    batch_size: train.AtLeast1 = 100
    # Source of unlabeled images, resized to the labeled ones: digits, mnist, omniglot, dir:PATH, npz:PATH.
    unlabeled: str = 'digits'
    # Source of labeled images, which have to be square.
    labeled: str = 'digits'
    # Classes of the unlabeled set to use; none given: all.
    unlabeled_classes: tuple[train.AtLeast0, ...] = (0, 1, 2, 3, 4)
    # Classes of the labeled set to use; none given: all.
    labeled_classes: tuple[train.AtLeast0, ...] = (5, 6, 7, 8, 9)
    # Largest number of unlabeled images to use; a tenth of them is held out for evaluation.
    num_signals: train.AtLeast2 = 30_000
    # Number of latent units.
    latent_dim: train.AtLeast1 = 128
    # Fraction of pixels set to 0 in training.
    mask_rate: train.Fraction = 0.5
    # Peak learning rate; it falls to 0 along a half cosine.
    learning_rate: train.Positive = 1e-3
    # Numbers of labels per class.
    labels_per_class: train.Ints = (1, 2, 5, 20)
    # Number of training sets drawn for every number of labels.
    num_trials: train.AtLeast1 = 20
    # Labeled images per class from which small training sets are drawn.
    candidates_per_class: train.AtLeast1 = 500


METRICS = (
    train.Metric('denoising_accuracy', 'fraction', 'higher', 'accuracy of codes', primary=True),
    train.Metric('accuracy', 'fraction', 'higher', 'test accuracy'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy per masked image'),
    train.Metric('error', '', 'lower', 'squared error per image, nothing masked'),
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
    task = images.load(
        config.labeled,
        classes=config.labeled_classes,
        candidates_per_class=config.candidates_per_class,
        seed=config.seed,
        **config.data_kwargs(),
    )
    _, height, width, _ = task.train_images.shape
    if height != width:
        raise ValueError(
            f'images of {config.labeled} are {height} x {width}; crop or pad them to squares'
        )
    fewest = int(np.bincount(task.train_labels, minlength=len(task.class_names)).min())
    if max(config.labels_per_class) > fewest:
        raise ValueError(
            f'--labels_per_class {max(config.labels_per_class)}, but a class of {config.labeled} has '
            f'{fewest} training images (at most --candidates_per_class); use at most {fewest}'
        )
    signals = images.load_signals(
        config.unlabeled,
        config.num_signals,
        image_size=width,
        seed=config.seed,
        classes=config.unlabeled_classes,
        **config.data_kwargs(),
    )
    x = np.asarray(check_unit_interval(signals, config.unlabeled))
    num_held_out = max(len(x) // 10, 1)
    constants = {'image_shape': (height, width)}
    return train.in_memory(
        x[num_held_out:],
        config.batch_size,
        seed=config.seed,
        evaluation=x[:num_held_out],
        spec=train.Spec(x.shape[1:], task.class_names, constants),
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
        return {
            'loss': model.loss(params, x, jax.random.key(1)),  # the same masks every time
            'error': jnp.mean(squared_error(x, restored)),
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return train.optimize(init, loss, optax.adam(schedule), evaluate)


def apply(config, spec):
    """Functions of a state and images in [0, 1], [n, h, w, 1] or [n, d]."""
    model = registry.masking_denoiser(config.latent_dim, config.mask_rate)

    def encode(state, x):
        return model.encode(state.params, x.reshape(len(x), -1))

    def reconstruct(state, x):
        return model.decode(state.params, encode(state, x))

    return {'encode': encode, 'reconstruct': reconstruct}


def features(config, spec, state, x):
    """{name: features [n, p]} of images [n, h, w, 1]."""
    model = registry.masking_denoiser(config.latent_dim, config.mask_rate)
    raw = jnp.asarray(x).reshape(len(x), -1)
    random = model.init(jax.random.fold_in(jax.random.key(config.seed), 1), spec.shape[0])
    codes = model.encode(state.params, raw)
    return {
        'raw pixels': raw,
        'random weights': model.encode(random, raw),
        'denoising': codes,
        'raw + denoising': self_taught.with_raw(codes, raw),
    }


def report(config, state, data):
    from lecture4.figures import curves, dictionary
    from lecture4.figures import images as drawn

    task, spec = data.report_data, data.spec
    shape = spec.constants['image_shape']
    learned, tested = (
        features(config, spec, state, x) for x in (task.train_images, task.test_images)
    )
    draws = {
        name: label_efficiency.label_curve(
            config.seed, learned[name], task.train_labels, tested[name], task.test_labels,
            labels_per_class=config.labels_per_class, num_trials=config.num_trials,
        )
        for name in learned
    }  # fmt: skip
    records = [
        {'features': name, 'labels_per_class': n, 'accuracy': values}
        for name in draws
        for n, values in zip(config.labels_per_class, draws[name], strict=True)
    ]
    caption = (
        f'{config.num_trials} draws of the labeled set. Unlabeled: {len(data.device_arrays)} of '
        f'{config.unlabeled}; labeled: {config.labeled}, {spec.num_classes} classes, '
        f'{len(task.test_labels)} test images. Linear SVM, C by cross-validation on the labeled set.'
    )
    table = train.Table(
        'Accuracy against labels', records, ('features',), caption=caption, pivot='labels_per_class'
    )
    # All features get the same training sets, so the standard error is that of paired differences.
    gains = []
    for name in ('raw pixels', 'random weights'):
        gain = 100 * (draws['denoising'][-1] - draws[name][-1])
        error = f' ± {gain.std(ddof=1) / len(gain) ** 0.5:.1f}' if len(gain) > 1 else ''
        gains.append(f'{gain.mean():.1f}{error} points over {name}')
    few = data.evaluation[np.linspace(0, len(data.evaluation) - 1, 12).astype(int)]
    restored = np.asarray(apply(config, spec)['reconstruct'](state, few))
    rows = {config.unlabeled: few, 'reconstruction': restored}
    # Weights of pixels that are nearly always blank stay as initialized and would hide the others.
    std = np.std(data.device_arrays, axis=0)[:, None]
    return train.Report(
        metrics={'denoising_accuracy': draws['denoising'][-1].mean()},
        tables=(table,),
        figures={
            'accuracy': train.Figure(
                curves.label_curve(draws, config.labels_per_class, chance=1 / spec.num_classes),
                'Test accuracy against labels per class, mean and standard error.',
            ),
            'filters': train.Figure(
                dictionary.atoms(
                    std * np.asarray(state.params.encoder[0].weight), shape, n=64, columns=16
                ),
                f'Encoder weights learned from {config.unlabeled}, times the standard deviation of '
                'their pixel.',
            ),
            'reconstructions': train.Figure(
                drawn.rows({name: x.reshape(-1, *shape) for name, x in rows.items()}),
                'Held-out unlabeled images, nothing masked.',
            ),
        },
        summary=f'With {config.labels_per_class[-1]} labels per class the codes gain '
        f'{" and ".join(gains)}.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
