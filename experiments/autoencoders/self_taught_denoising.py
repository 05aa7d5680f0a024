"""Self-taught learning by a denoising autoencoder: unlabelled pictures make features for other ones.

Raina, Battle, Lee, Packer & Ng, ICML 2007, with the features of Vincent et al. 2008 in the place of
sparse codes. One logistic layer learns to fill in masked pixels of pictures without labels; its code
then describes pictures of other classes, of which few have labels. A linear SVM learns from those,
its C chosen by cross-validation on them alone. Raw pixels and the same layer with random weights get
the same draws of labels and the same SVM: without the second nothing shows that the learning helps.

Run     python -m experiments.autoencoders.self_taught_denoising          (digits 0-4 for 5-9, no file)
        python -m experiments.autoencoders.self_taught_denoising --preset handwriting --manual_dir PATH
Cost    Half a minute of processor time; handwriting 3.7 minutes.
Found   handwriting (Omniglot's train split at 28 x 28 for MNIST, 512 units, 20 draws), test accuracy in %
        with 100, 500, 1000 labels: pixels 73.8, 85.0, 87.3; random weights 72.9, 85.1, 87.3; denoising
        76.8, 88.4, 90.6; pixels and denoising together 75.8, 87.0, 89.4. Standard errors 0.1 to 0.4. On the
        same two sets the sparse codes of sparse_coding.self_taught have 53.1, 74.3, 79.9.
        digits, where 585 unlabelled pictures have to do: it does not help. With 5, 10, 25, 100 labels:
        pixels 72.7, 82.5, 87.6, 93.0; random weights 72.9, 82.2, 88.3, 93.5; denoising 64.8, 75.0, 83.3,
        91.2.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.autoencoder import registry
from lecture4.data import images as image_data
from lecture4.features import label_efficiency, self_taught
from lecture4.ops.losses import check_unit_interval, squared_error


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of training.
    steps: int = 3000
    # Unlabelled pictures in a step, over all devices.
    batch_size: int = 100
    # Where unlabelled pictures come from: digits, mnist, omniglot, dir:PATH, npz:PATH.
    unlabelled: str = 'digits'
    # Where labelled pictures come from; the unlabelled ones are brought to their size.
    labelled: str = 'digits'
    # Classes of the unlabelled set that are used; none given: all.
    unlabelled_classes: tuple[int, ...] = (0, 1, 2, 3, 4)
    # Classes of the labelled set that are used; none given: all.
    labelled_classes: tuple[int, ...] = (5, 6, 7, 8, 9)
    # Unlabelled pictures that are drawn, at most; a tenth of them is held out to evaluate on.
    signals: int = 30_000
    # Units of the code.
    width: int = 128
    # Share of pixels set to 0 in training.
    masking: float = 0.5
    # Peak of the learning rate, which falls to 0 along a half cosine.
    learning_rate: float = 1e-3
    # Labels a class that the classifier gets to see.
    labels: tuple[int, ...] = (1, 2, 5, 20)
    # Training sets drawn for every number of labels.
    draws: int = 20
    # Labelled pictures a class that training sets are drawn from.
    pool: int = 500

    def __post_init__(self):
        super().__post_init__()
        for name in ('width', 'draws', 'pool'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        train.require(self, 'masking', 0 <= self.masking <= 1, 'between 0 and 1')
        train.require(self, 'signals', self.signals >= 10, 'at least 10')
        fits = min(self.labels, default=0) >= 1 and max(self.labels, default=0) <= self.pool
        train.require(self, 'labels', fits, f'numbers between 1 and --pool {self.pool}')


PRESETS = {
    'smoke': {'steps': 20, 'width': 16, 'labels': (2,), 'draws': 2},
    'handwriting': {
        'unlabelled': 'omniglot',
        'labelled': 'mnist',
        'unlabelled_classes': (),
        'labelled_classes': (),
        'width': 512,
        'steps': 6000,
        'steps_per_call': 200,
        'log_every': 200,
        'evaluate_every': 1000,
        'save_every': 3000,
        'labels': (10, 50, 100),
    },
}
SWEEPS = {
    'masking': train.grid(masking=(0.0, 0.25, 0.5, 0.75), seed=(0, 1)),
    'width': train.grid(width=(128, 256, 512, 1024)),
}


def data(config):
    places = config.data_kwargs()
    labelled = image_data.load(
        config.labelled,
        classes=config.labelled_classes,
        candidates_per_class=config.pool,
        seed=config.seed,
        **places,
    )
    _, height, width, _ = labelled.train_images.shape
    if height != width:
        raise ValueError(
            f'pictures of {config.labelled} are {height} x {width}; crop or pad them to squares'
        )
    found = image_data.load_signals(
        config.unlabelled,
        config.signals,
        image_size=width,
        seed=config.seed,
        classes=config.unlabelled_classes,
        **places,
    )
    x = np.asarray(check_unit_interval(found, config.unlabelled))
    n_held = max(len(x) // 10, 1)
    return train.in_memory(
        x[n_held:],
        config.batch_size,
        seed=config.seed,
        evaluation=x[:n_held],
        extra={'labelled': labelled},
    )


def build(config):
    own = registry.masking_denoiser(config.width, config.masking)

    def loss(params, x, key):
        return own.loss(params, x, key), {}

    def evaluate(params, x):
        restored = own.decode(params, own.encode(params, x))
        return {
            'loss': own.loss(params, x, jax.random.key(1)),  # one draw for all evaluations
            'error': jnp.mean(squared_error(x, restored)),  # of whole pictures
        }

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    init = lambda key, x: own.init(key, x.shape[1])  # noqa: E731
    return train.optimise(init, loss, optax.adam(schedule), evaluate)


def features(config, params, images):
    """{name: features [n, p]} of pictures [n, h, w, 1]: pixels, random codes, learned ones, both."""
    own = registry.masking_denoiser(config.width, config.masking)
    raw = jnp.asarray(images).reshape(len(images), -1)
    random = own.init(jax.random.fold_in(jax.random.key(config.seed), 1), raw.shape[1])
    code = own.encode(params, raw)
    return {
        'raw pixels': raw,
        'random weights': own.encode(random, raw),
        'denoising': code,
        'raw + denoising': self_taught.with_raw(code, raw),
    }


def report(config, state, data):
    from lecture4.figures import curves, dictionary, images

    labelled = data.extra['labelled']
    learned, tested = (
        features(config, state.params, part)
        for part in (labelled.train_images, labelled.test_images)
    )
    accuracy = {
        name: label_efficiency.label_curve(
            config.seed,
            learned[name],
            labelled.train_labels,
            tested[name],
            labelled.test_labels,
            labels_per_class=config.labels,
            num_trials=config.draws,
        )
        for name in learned
    }
    rows = tuple(
        (name, *(train.mean_and_error(100 * draws) for draws in values))
        for name, values in accuracy.items()
    )
    n_classes, n_test = len(labelled.class_names), len(labelled.test_labels)
    counts = [n * n_classes for n in config.labels]
    caption = (
        f'Test accuracy in %, mean and standard error over {config.draws} draws of the labelled set. '
        f'Unlabelled: {len(data.resident)} of {config.unlabelled}; labelled: {config.labelled}, '
        f'{n_classes} classes, {n_test} test pictures. Linear SVM, C by cross-validation on the '
        'labelled set.'
    )
    # The same draws for all features, so gains are means of differences of pairs.
    gains = {
        name: 100 * (accuracy['denoising'][-1] - accuracy[name][-1])
        for name in ('raw pixels', 'random weights')
    }
    metrics = {
        f'accuracy_{name.replace(" + ", "_").replace(" ", "_")}_{n}': float(value)
        for name, values in accuracy.items()
        for n, value in zip(counts, values.mean(1), strict=True)
    }
    side = labelled.train_images.shape[1:3]
    few = data.evaluation[np.linspace(0, len(data.evaluation) - 1, 12).astype(int)]
    own = registry.masking_denoiser(config.width, config.masking)
    restored = np.asarray(own.decode(state.params, own.encode(state.params, few)))
    shown = {config.unlabelled: few, 'restored': restored}
    # Where nearly no picture has ink weights stay as they were drawn, and would hide the others.
    scale = np.std(data.resident, axis=0)[:, None]
    weight = scale * np.asarray(state.params.encoder[0].weight)
    return train.Report(
        metrics=metrics,
        tables=(
            train.Table(
                'Accuracy against labels',
                ('features', *(f'{n} labels' for n in counts)),
                rows,
                caption,
            ),
        ),
        pictures={
            'accuracy': train.Picture(
                curves.label_curve(accuracy, counts, xlabel='labels'),
                caption,
            ),
            'filters': train.Picture(
                dictionary.atoms(weight, side, n=64, columns=16),
                f'Weights of units learned from {config.unlabelled}, times the standard deviation of '
                'their pixel.',
            ),
            'reconstructions': train.Picture(
                images.rows({k: v.reshape(-1, *side) for k, v in shown.items()}),
                'Held-out unlabelled pictures, nothing masked.',
            ),
        },
        summary=f'With {counts[-1]} labels the denoising features gain '
        + ', '.join(f'{train.mean_and_error(gain)} points over {k}' for k, gain in gains.items())
        + '.',
    )


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
