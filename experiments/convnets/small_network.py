"""The lecture's small network: convolution, detector, pooling; what pooling is good for.

One network a kind of pooling learns from the same batches and the same first filters. Then test
pictures are shifted: how far do the features move, how many are still told right? 'subsample' makes
the maps as small as pooling does, but keeps one value of a window unseen by the others, so that what
differs between it and 'max' is pooling itself. Beside them

  by_hand     the 'max' network, its gradients from the delta rules written by hand instead of
              jax.grad: it has to draw the same curve;
  unbalanced  the 'max' network on a set in which the second half of the classes is rare;
  balanced    the same set, the frequent classes downsampled in every epoch.

Run     python -m experiments.convnets.small_network
        python -m experiments.convnets.small_network --preset mnist --manual_dir PATH
Cost    under a minute of one core; mnist two to three.
Found   Seed 0. Features move less with pooling, and accuracy outlives a shift better with maxima than
        with subsampling; on MNIST without any pooling too, but that takes four times the weights.
                                               none  subsample  mean   max
        MNIST   accuracy, %, unshifted         95.9    94.3     94.0   95.4
                shifted by 2 pixels            78.0    72.5     73.0   78.0
                features moved by 1 pixel      0.54    0.48     0.42   0.44   (pixels 0.52)
        digits  accuracy, %, unshifted         92.2    91.6     90.4   92.8
                shifted by 1 pixel             46.4    44.0     46.8   54.3
        By hand: losses differ by at most 9e-7 (MNIST) and 2e-6 (digits) of their size.
        Rare classes told right, of MNIST with 1 % of their pictures 42.2 %, with balanced batches
        86.1 %; of digits with 5 % of them 61.6 and 79.3 %.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches, sources
from lecture4.features import invariance
from lecture4.ops import receptive_field
from lecture4.vision.models import cnn
from lecture4.vision.models.cnn import CNN

POOLINGS = ('none', 'subsample', 'mean', 'max')
BY_HAND, UNBALANCED, BALANCED = 'by_hand', 'unbalanced', 'balanced'


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    # Steps of training.
    steps: int = 600
    batch_size: int = 64
    # Where the labelled pictures come from: digits, mnist, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Pixels of 0 put round every picture, so that shifts lose nothing.
    margin: int = 3
    # Largest shift that is tested, in pixels; at most the margin.
    shift: int = 3
    # Filters of each stage.
    channels: tuple[int, ...] = (16,)
    # Side of the filters.
    kernel: int = 3
    # Zeros round the input of each convolution.
    padding: int = 0
    # Side and stride of the pooling windows; the ragged edge is kept.
    window: int = 2
    # Activation function between convolution and pooling.
    detector: Literal['relu', 'sigmoid'] = 'relu'
    # Softmax with cross-entropy, or sigmoid units with the squared error.
    output: Literal['softmax', 'sigmoid'] = 'softmax'
    # Learning rate of SGD with momentum 0.9.
    learning_rate: float = 0.02
    # Weight decay of kernels and dense weights, added to their gradients.
    weight_decay: float = 1e-3
    # Share of the training pictures of the second half of the classes that the unbalanced set keeps.
    rare: float = 0.05
    # Test pictures looked at during training and shifted after it; 0 takes all.
    tested: int = 1000

    def __post_init__(self):
        super().__post_init__()
        for name in ('kernel', 'window'):
            train.require(self, name, getattr(self, name) >= 1, 'at least 1')
        for name in ('margin', 'padding', 'tested'):
            train.require(self, name, getattr(self, name) >= 0, 'at least 0')
        wanted = f'between 0 and --margin, which is {self.margin}: more would push pictures out'
        train.require(self, 'shift', 0 <= self.shift <= self.margin, wanted)
        good = self.channels and min(self.channels) >= 1
        train.require(self, 'channels', bool(good), 'one number or more, each at least 1')
        train.require(self, 'rare', 0 < self.rare <= 1, 'above 0 and at most 1')
        train.require(self, 'learning_rate', 0 < self.learning_rate < np.inf, 'above 0')
        train.require(self, 'weight_decay', 0 <= self.weight_decay < np.inf, 'at least 0')


_MNIST = {'source': 'mnist', 'kernel': 5, 'channels': (8,), 'steps': 500, 'rare': 0.01}
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 16, 'channels': (4,), 'tested': 20, 'shift': 1},
    'mnist': _MNIST,
    'mnist_two_stages': {**_MNIST, 'channels': (8, 16)},
}
SWEEPS = {'rare': train.grid(rare=(0.02, 0.05, 0.2, 1.0), seed=(0, 1, 2))}


def networks(config, n_classes) -> dict[str, CNN]:
    make = functools.partial(
        CNN, config.channels, config.kernel, config.padding, config.detector,
        window=config.window, edge='torch', n_classes=n_classes, output=config.output,
    )  # fmt: skip
    kinds = {pooling: make(pooling=pooling) for pooling in POOLINGS}
    return kinds | dict.fromkeys((BY_HAND, UNBALANCED, BALANCED), kinds['max'])


def data(config):
    border = ((0, 0), (config.margin,) * 2, (config.margin,) * 2, (0, 0))
    pictures, labels, names = {}, {}, ()
    for split in ('test', 'train'):
        found = sources.load(config.source, split, **config.data_kwargs())
        if not isinstance(found.images, np.ndarray) or found.labels is None:
            raise ValueError(f'--source {config.source}: labelled pictures of one size are wanted')
        padded = np.pad(found.images, border)
        scale = 255 if padded.dtype == np.uint8 else 1
        pictures[split], labels[split] = padded.astype(np.float32) / scale, found.labels
        names = found.class_names
    x = pictures['train']
    if x.shape[1:] != pictures['test'].shape[1:]:
        raise ValueError(f'--source {config.source}: its test pictures have another size')
    n_classes = len(names)
    for name, network in networks(config, n_classes).items():
        try:
            receptive_field.summarize(cnn.layer_stack(network), x.shape[1:])
        except ValueError as error:
            raise ValueError(f'network {name}: {error}') from None
    kept = thinned(labels['train'], n_classes, config.rare, config.seed)
    evenly = batches.balanced(labels['train'][kept], config.batch_size, seed=config.seed)

    def batch(n):
        draw = functools.partial(batches.indices, config.seed, n, batch_size=config.batch_size)
        return {
            'all': draw(n_examples=len(x)),
            UNBALANCED: kept[draw(n_examples=len(kept))],
            BALANCED: kept[evenly(n)],
        }

    def prepare(resident, rows, key):
        del key
        drawn = {name: (resident['x'][at], resident['labels'][at]) for name, at in rows.items()}
        return drawn | {'classes': resident['classes']}

    tested = slice(config.tested or None)
    return train.Data(
        batch,
        resident={'x': x, 'labels': labels['train'], 'classes': np.zeros(n_classes, np.float32)},
        prepare=prepare,
        evaluation=(pictures['test'][tested], labels['test'][tested]),
        extra={'test': (pictures['test'], labels['test']), 'names': names},
    )


def thinned(labels, n_classes, share, seed) -> np.ndarray:
    """Rows of all pictures of the first half of the classes, and of a share of each other class's."""
    rng = np.random.default_rng((seed, 1))
    rows = [np.flatnonzero(labels == c) for c in range(n_classes)]
    for c in range(n_classes // 2, n_classes):
        n_kept = min(len(rows[c]), max(1, round(share * len(rows[c]))))
        rows[c] = rng.choice(rows[c], n_kept, replace=False)
    return np.sort(np.concatenate(rows)).astype(np.int32)


class State(NamedTuple):
    """networks  {name: (parameters, the optimiser's state)}.

    curves    losses of 'max' and 'by_hand' at every step, [2, steps].
    n         steps taken.
    """

    networks: dict[str, tuple[Any, Any]]
    curves: jax.Array
    n: jax.Array


def build(config):
    kernels = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    optimizer = optax.chain(
        optax.add_decayed_weights(config.weight_decay, kernels),
        optax.sgd(config.learning_rate, momentum=0.9),
    )

    def init(key, batch):
        x, _ = batch['all']
        learned = {}
        for name, network in networks(config, len(batch['classes'])).items():
            params = cnn.init(key, network, x.shape[1:])
            learned[name] = (params, optimizer.init(params))
        return State(learned, jnp.zeros((2, config.steps)), jnp.int32(0))

    def step(state, batch, key, *, axis_name=None):
        del key
        learned, losses = {}, {}
        for name, network in networks(config, len(batch['classes'])).items():
            x, labels = batch.get(name, batch['all'])
            params, memory = state.networks[name]
            gradient_fn = jax.value_and_grad(cnn.loss)
            if name == BY_HAND:
                gradient_fn = cnn.manual_value_and_grad
            value, gradients = gradient_fn(params, x, labels, network)
            if axis_name is not None:
                value, gradients = jax.lax.pmean((value, gradients), axis_name)
            updates, memory = optimizer.update(gradients, memory, params)
            learned[name] = (optax.apply_updates(params, updates), memory)
            losses[name] = value
        curve = jnp.stack([losses['max'], losses[BY_HAND]])
        curves = state.curves.at[:, state.n].set(curve)
        metrics = {f'loss_{name}': value for name, value in losses.items()}
        return State(learned, curves, state.n + 1), metrics

    def evaluate(state, evaluation):
        x, labels = evaluation
        metrics = {}
        for name, network in networks(config, 0).items():
            z, _ = cnn.apply(state.networks[name][0], x, network)
            metrics[f'accuracy_{name}'] = jnp.mean(jnp.argmax(z, 1) == labels, dtype=z.dtype)
        return metrics

    return train.Task(init, step, evaluate)


def shifts(features_fn, x, labels, largest):
    """(how far features move, share told right), each for 0 .. largest pixels, means of four directions.

    features_fn  x -> (what the network answers [n], its features [n, ...]).
    """
    run = jax.jit(features_fn)
    _, still = run(x)
    found = []
    for pixels in range(largest + 1):
        views = [run(view) for view in invariance.translations(x, pixels)]
        moved = np.mean([invariance.relative_change(features, still) for _, features in views])
        found.append((moved, np.mean([np.asarray(answer) == labels for answer, _ in views])))
    return np.array(found).T


def recalls(features_fn, x, labels, n_classes):
    """Share of each class's pictures that are told right, [n_classes]."""
    run = jax.jit(lambda x: features_fn(x)[0])
    answers = np.concatenate([run(x[at : at + 500]) for at in range(0, len(x), 500)])
    right = np.bincount(labels[answers == labels], minlength=n_classes)
    return right / np.maximum(np.bincount(labels, minlength=n_classes), 1)


def report(config, state, data):
    from lecture4.figures import feature_maps, lines

    names, (x, labels) = data.extra['names'], data.evaluation
    nets = networks(config, len(names))
    half, last = len(names) // 2, f'pool{len(config.channels)}'

    def run(name, x):
        z, activations = cnn.apply(state.networks[name][0], x, nets[name])
        return jnp.argmax(z, axis=1), activations[last]

    moved, right = {}, {}
    pixels_fn = lambda x: (jnp.zeros(len(x), jnp.int32), x)  # noqa: E731
    moved['pixels'], _ = shifts(pixels_fn, x, labels, config.shift)
    for name in POOLINGS:
        moved[name], share = shifts(functools.partial(run, name), x, labels, config.shift)
        right[name] = 100 * share
    x_all, labels_all = data.extra['test']
    recall = {
        name: 100 * recalls(functools.partial(run, name), x_all, labels_all, len(names))
        for name in nets
    }
    curves = np.asarray(state.curves)
    apart = abs(curves[1] - curves[0]) / curves[0]
    pixels, steps = np.arange(config.shift + 1), np.arange(1, config.steps + 1)
    sampled = {'all pictures': 'max', 'unbalanced': UNBALANCED, 'balanced': BALANCED}
    shown = np.asarray(x[:4])
    some = np.linspace(0, config.steps - 1, 12).astype(int)  # the curves cover one another
    _, maps = cnn.apply(state.networks['max'][0], jnp.asarray(shown), nets['max'])
    axis = {'xlabel': 'step', 'yscale': 'log'}
    metrics = {f'accuracy_{name}': float(recall[name].mean()) for name in nets}
    metrics |= {f'moved_{name}': float(values[-1]) for name, values in moved.items()}
    metrics |= {f'shifted_{name}': float(values[-1]) for name, values in right.items()}
    metrics |= {f'rare_{name}': float(recall[name][half:].mean()) for name in sampled.values()}
    return train.Report(
        metrics=metrics | {'by_hand_apart': float(apart.max())},
        tables=(
            _table('Test accuracy of shifted pictures, %', pixels, right),
            _table('How far a shift moves the features (1: to those of another picture)', pixels, moved),
            train.Table(
                'Recall in %, mean over classes', ('trained on', 'all', 'frequent', 'rare'),
                tuple(
                    (title, *(float(v.mean()) for v in (r, r[:half], r[half:])))
                    for title, r in ((title, recall[name]) for title, name in sampled.items())
                ),
                f'Rare: {", ".join(names[half:][:10])}; {100 * config.rare:g} % of their pictures are kept.',
            ),
        ),
        pictures={
            'shifts': train.Picture(
                lines.panels({
                    title: {'curves': {name: (pixels, v) for name, v in values.items()},
                            'xlabel': 'shift in pixels'}
                    for title, values in (('distance of the features', moved), ('accuracy, %', right))
                }),
                'How far the features of the last stage move when pictures are shifted (1: as far as '
                "another picture's), and how many pictures are told right.",
            ),
            'by_hand': train.Picture(
                lines.panels({
                    'loss': axis | {'curves': {'jax.grad': (steps, curves[0]),
                                               'by hand': (steps[some], curves[1, some])}},
                    'relative difference': axis | {'curves': {'difference': (steps, apart + 1e-9)}},
                }),
                'One network, gradients once from jax.grad and once from the delta rules (marked at some steps '
                'only, where it covers the other). 1e-9 stands for no difference.',
            ),
            'recall': train.Picture(
                lines.panels({
                    'recall by class, %': {
                        'curves': {title: (np.arange(len(names)), recall[name])
                                   for title, name in sampled.items()},
                        'xlabel': f'class; rare from {half} on'},
                }, size=(6.4, 3)),
                'The unbalanced set as it is, and with the frequent classes downsampled.',
            ),
            'filters': train.Picture(
                feature_maps.filters(state.networks['max'][0]['conv1']['kernel']),
                "The first filters of 'max'.",
            ),
            'maps': train.Picture(
                feature_maps.maps(shown, {name: a for name, a in maps.items() if a.ndim == 4}),
                "Test pictures and what the stages of 'max' make of them.",
            ),
        },
        summary=f'Test accuracy at 0 and {config.shift} pixels of shift: '
        + ', '.join(f'{name} {v[0]:.1f} and {v[-1]:.1f} %' for name, v in right.items())
        + f'. Trained by hand, losses differ by at most {apart.max():.0e} of their size in '
        f'{config.steps} steps. Of the rare classes {recall[UNBALANCED][half:].mean():.1f} % are told '
        f'right, {recall[BALANCED][half:].mean():.1f} % with balanced batches.',
    )  # fmt: skip


def _table(title, pixels, values):
    columns = ('shift in pixels', *map(str, pixels))
    return train.Table(title, columns, tuple((name, *map(float, v)) for name, v in values.items()))


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
