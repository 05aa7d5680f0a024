"""Any of the image networks on any labelled pictures, by the papers' recipes; tested by one look or many.

Presets alexnet, zfnet, vgg, googlenet and resnet are the recipes for ImageNet: --source dir:PATH with
PATH/train/CLASS and PATH/val/CLASS. Where a paper divides its rate when the validation error stops
falling, they divide it at fixed shares of the steps. Pictures are brought to squares, kept on the
devices, in the host's memory or (these five) on the disk, and read ahead of the step that sees them;
augmentation runs on the devices, inside the compiled step.

Run     python -m experiments.convnets.image_classification                      (digits, no download)
        python -m experiments.convnets.image_classification --preset textures
        python -m experiments.convnets.image_classification --preset cifar10 --manual_dir PATH
        ... --preset resnet --source dir:PATH --network resnet_50_v1_5 --init resnet50.pth --new_head
        ... --ensemble runs/a runs/b --views center 10        (with the networks of other finished runs)
Cost    processor time of one core: digits and textures half a minute, cifar10 4 minutes, of which the 11
        views of 10,000 test pictures take 1. The papers' recipes are for accelerators.
Found   in % of the test pictures, with 95 % intervals; cifar_resnet_8, seed 0, 2 CPU cores.
          digits     97.8 (96.1 to 98.8); with --seed 1 97.4; the two together (--ensemble) 97.8
          textures   97.4 (97.0 to 97.8) by the middle, 98.2 (97.9 to 98.5) by 10 views
          cifar10    60.3 (59.3 to 61.2) by the middle, 61.3 (60.3 to 62.2) by 10 views: 1000 steps of 64
Published  errors on ImageNet's validation pictures, first answer / among five, in %: alexnet 40.7 / 18.2 and
        zfnet 38.4 / 16.5 by 10 views; vgg_d dense at three scales 24.8 / 7.5; googlenet by 144 views - / 7.9;
        resnet_50 22.9 / 6.7 by 10 views, 20.7 / 5.3 dense at five scales. Not run here.

Other than in the papers: VGG's deeper networks start from He's random weights, not from network A; of
networks with batch norm the average of parameters is tested with averaged batch statistics.
"""

import dataclasses
import functools
import time
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lecture4 import train
from lecture4.data import batches
from lecture4.data import images as image_data
from lecture4.data.images import normalize, prefetch, transforms
from lecture4.ops import metrics as scores
from lecture4.ops import resize
from lecture4.ops.reduce import Reduce
from lecture4.train import load_run, sgd
from lecture4.vision import layers, multi_crop, train_step
from lecture4.vision.models import registry, zfnet
from lecture4.vision.weights import pretrained, transfer

part = functools.partial
Scale = Literal['auto'] | normalize.Kind
MEASURED = 4096  # of pictures on the disk, for their mean and deviation
CHANNELS = 3  # of what the networks see; grey pictures are three equal ones


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: int = 500  # steps of training
    batch_size: int = 32  # pictures in a step, over all devices
    network: str = 'cifar_resnet_8'  # which network; a name that is none lists them all
    dtype: Literal['float32', 'bfloat16'] = 'float32'  # what it computes in
    init: str = ''  # weights of torchvision or timm to start from, .pth or .safetensors
    new_head: bool = False  # of --init take all but the classifier, which is started anew

    # Where labelled pictures come from: textures, digits, mnist, cifar10, dir:PATH, npz:PATH.
    source: str = 'digits'
    side: int = 0  # side of the squares that pictures are brought to; 0: as they are
    # Cut examples of that side out of the pictures, for training on the left, for testing on the right.
    cut: bool = False
    test_split: str = 'test'  # the source's split to test on
    held_out: float = 0.0  # share of the training pictures to test on instead
    # What to do with a dir: source's pictures that cannot be read.
    unreadable: Literal['refuse', 'skip'] = 'refuse'
    # Where pictures stay: disk (of a dir: source, with a side) reads and squares them batch by batch.
    stored: Literal['devices', 'host', 'disk'] = 'devices'
    class_balanced: bool = False  # draw classes equally often: the frequent ones are downsampled

    crop: int = 0  # side of what the network sees; 0: that of the pictures
    # What part of a picture is seen: its middle, a random crop, a crop of it with a border (padding),
    # a crop of it at scales of `jitter`, or Inception's boxes.
    augmentation: transforms.Kind = 'pad'
    padding: int = 1  # pixels of the mean colour round a picture, with --augmentation pad
    jitter: tuple[int, int] = (256, 480)  # shorter sides before a crop, with --augmentation jitter
    flips: bool = False  # mirror half of the pictures
    colour_noise: float = 0.0  # deviation of noise along the principal colours; 0.1 in papers
    colour_jitter: float = 0.0  # largest change of contrast, brightness and saturation
    # Scale of colours: that of the weights with --init, else standard; or see data/normalisation.py.
    normalize: Scale = 'auto'

    learning_rate: float = 0.05  # at the start
    # How the rate falls: times `factor` at `drops`, or `every` so often, or as (1 - share of steps)^0.5.
    schedule: Literal['drops', 'staircase', 'polynomial'] = 'drops'
    drops: tuple[float, ...] = (0.5, 0.75)  # shares of the steps
    every: float = 0.1  # share of the steps, with --schedule staircase
    factor: float = 0.1  # see --schedule
    momentum: float = 0.9  # of gradients (torch) or of steps (caffe)
    convention: Literal['torch', 'caffe'] = 'torch'  # of momentum
    weight_decay: float = 1e-4  # added to gradients
    decayed: Literal['kernels', 'all'] = 'all'  # kernels, or biases and batch norm's too
    bias_rate: float = 1.0  # biases learn at this many times the rate
    largest_filter: float = 0.0  # bound of filters' root mean squares; 0: none
    # Share of the steps from which on parameters are averaged (Polyak), to be tested; 1: never.
    average_from: float = 1.0

    # Looks at a test picture, a row of the table each: center, 10, 144, 150, dense.
    views: tuple[multi_crop.Kind, ...] = ('center',)
    looked_at: int = (
        0  # side that pictures have for 1 and 10 views, and in training's tests; 0: their own
    )
    # Shorter sides at which 144, 150 and dense look; (): the papers', and for dense the pictures' own.
    scales: tuple[int, ...] = ()
    tested: int = 256  # test pictures looked at during training
    # Directories of other finished runs, whose probabilities are averaged with this one's.
    ensemble: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        network_of(self, 1)
        low = (
            'side',
            'crop',
            'looked_at',
            'padding',
            'colour_noise',
            'weight_decay',
            'largest_filter',
        )
        for names, holds, wanted in (
            (low, lambda v: 0 <= v < np.inf, 'at least 0'),
            (('learning_rate', 'every', 'factor', 'bias_rate'), lambda v: 0 < v < np.inf, 'above 0'),
            (('held_out', 'colour_jitter', 'momentum'), lambda v: 0 <= v < 1, 'at least 0, below 1'),
            (('average_from',), lambda v: 0 <= v <= 1, 'from 0 to 1'),
            (('tested',), lambda v: v >= 1, 'at least 1'),
            (('views',), bool, 'one or more'),
        ):  # fmt: skip
            for name in names:
                train.require(self, name, holds(getattr(self, name)), wanted)


_PAPER = {
    'side': 256, 'crop': 224, 'test_split': 'val', 'augmentation': 'crop', 'flips': True, 'colour_noise': 0.1,
    'normalisation': 'mean_image', 'learning_rate': 0.01, 'drops': (0.3, 0.6, 0.9), 'convention': 'caffe',
    'stored': 'disk', 'tested': 1024, 'log_every': 100, 'evaluate_every': 5000, 'save_every': 5000,
}  # fmt: skip
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 16, 'tested': 32, 'views': ('center', 'dense')},
    'textures': {'source': 'textures', 'cut': True, 'side': 16, 'crop': 12, 'augmentation': 'crop', 'flips': True,
                 'steps': 300, 'views': ('center', '10')},
    'cifar10': {'source': 'cifar10', 'crop': 28, 'augmentation': 'crop', 'flips': True, 'steps': 1000,
                'batch_size': 64, 'learning_rate': 0.1, 'tested': 1024, 'log_every': 20, 'evaluate_every': 200,
                'save_every': 200, 'views': ('center', '10')},
    'alexnet': {**_PAPER, 'network': 'alexnet', 'crop': 227, 'batch_size': 128, 'steps': 900_000,
                'weight_decay': 5e-4, 'decayed': 'kernels', 'bias_rate': 2.0, 'views': ('center', '10')},
    'zfnet': {**_PAPER, 'network': 'zfnet', 'batch_size': 128, 'steps': 700_000, 'colour_noise': 0.0,
              'weight_decay': 0.0, 'largest_filter': zfnet.MAX_FILTER_RMS, 'views': ('center', '10')},
    'vgg': {**_PAPER, 'network': 'vgg_d', 'batch_size': 256, 'steps': 370_000, 'side': 512, 'looked_at': 256,
            'augmentation': 'jitter', 'jitter': (256, 512), 'normalisation': 'mean_color', 'weight_decay': 5e-4,
            'views': ('center', 'dense', '150'), 'scales': (256, 384, 512)},
    'googlenet': {**_PAPER, 'network': 'googlenet_auxiliary', 'batch_size': 256, 'steps': 300_000, 'side': 352,
                  'looked_at': 256, 'augmentation': 'inception', 'colour_jitter': 0.5,
                  'normalisation': 'mean_color', 'schedule': 'staircase', 'every': 8 / 60, 'factor': 0.96,
                  'weight_decay': 2e-4, 'decayed': 'kernels', 'bias_rate': 2.0, 'average_from': 0.8,
                  'views': ('center', '10', '144')},
    'resnet': {**_PAPER, 'network': 'resnet_50', 'batch_size': 256, 'steps': 450_000, 'side': 480,
               'looked_at': 256, 'learning_rate': 0.1, 'augmentation': 'jitter', 'drops': (1 / 3, 2 / 3),
               'views': ('center', '10', 'dense'), 'scales': (224, 256, 384, 480, 640)},
}  # fmt: skip
SWEEPS = {
    'learning_rate': train.grid(learning_rate=(0.01, 0.05, 0.2), seed=(0, 1, 2)),
    'augmentation': train.grid(augmentation=('none', 'crop', 'inception'), seed=(0, 1, 2)),
}


def network_of(config, n_classes):
    return registry.create(config.network, n_classes, dtype=jnp.dtype(config.dtype))


def data(config):
    size = {'crop_size' if config.cut else 'image_size': config.side}
    task = image_data.load(
        config.source, **size, pixels='stored', group_by_class=False, test_split=config.test_split,
        held_out=config.held_out, on_disk=config.stored == 'disk', seed=config.seed,
        unreadable=config.unreadable, **config.data_kwargs(),
    )  # fmt: skip
    n_classes, side = len(task.class_names), task.train_images.shape[1]
    recipe = transforms.Augmentation(
        config.crop or side, config.augmentation, config.padding, config.jitter, config.flips,
        config.colour_noise, config.colour_jitter,
    )  # fmt: skip
    network = network_of(config, n_classes)
    if config.normalisation == 'auto' and config.init:
        wanted = pretrained.preprocessing(network)
        scale = normalize.from_mean_std(wanted.mean, wanted.std)
    else:
        kind = 'standard' if config.normalisation == 'auto' else config.normalisation
        scale = normalize.create(kind, measured(config, task.train_images), CHANNELS)
    prepare_fn = part(transforms.prepare, augmentation=recipe, normalization=scale)
    try:  # by shapes alone: does the crop fit the pictures, and the network the crop?
        seen = jax.eval_shape(prepare_fn, jax.random.key(0), task.train_images[:1])
        jax.eval_shape(network.init, jax.random.key(0), seen)
        for kind in config.views:
            multi_crop.plan_for(kind, (side, side), recipe.crop, scales_of(config, kind))
    except ValueError as error:
        raise ValueError(f'--network {config.network} --crop {recipe.crop}: {error}') from None
    for directory in config.ensemble:
        load_run.config(directory, config)
    start = transfer.load(network, config.init, new_head=config.new_head) if config.init else ()
    common = {'scale': scale, 'start': start, 'classes': np.zeros(n_classes, np.float32)}
    on_devices = config.stored == 'devices'
    kept = {'images': task.train_images, 'labels': task.train_labels}
    draw = part(
        batches.indices, config.seed, n_examples=len(kept['labels']), batch_size=config.batch_size
    )
    if config.class_balanced:
        draw = batches.balanced(kept['labels'], config.batch_size, seed=config.seed)

    def rows_of(n, start=0, stop=None):
        rows = draw(n)[start:stop]
        return {'rows': rows} if on_devices else {name: a[rows] for name, a in kept.items()}

    @functools.cache
    def rows_ahead(start, stop):
        of = part(rows_of, start=start, stop=stop)
        return prefetch.prefetch(of) if config.stored == 'disk' else of

    def prepare(resident, batch, key):
        drawn = batch
        if on_devices:
            drawn = {name: array[batch['rows']] for name, array in resident['kept'].items()}
        images = transforms.prepare(key, drawn['images'], recipe, resident['common']['scale'])
        return resident['common'] | {'images': images, 'labels': drawn['labels']}

    n_tested = min(config.tested, len(task.test_images))
    at_once = min(config.batch_size, n_tested)
    shuffled = np.random.default_rng(config.seed).permutation(len(task.test_images))
    tested = shuffled[: n_tested // at_once * at_once].reshape(-1, at_once)
    return train.Data(
        rows_ahead(0, None),
        resident={'common': common, 'kept': kept if on_devices else {}},
        prepare=prepare,
        evaluation=common | {'images': task.test_images[tested], 'labels': task.test_labels[tested]},
        extra={'task': task, 'scale': scale, 'crop': recipe.crop},
        part=lambda n, start, stop: rows_ahead(start, stop)(n),
    )  # fmt: skip


def scales_of(config, kind):
    """Shorter sides at which a kind of looks sees the pictures; () its own."""
    if kind in ('center', '10'):
        return (config.looked_at,) if config.looked_at else ()
    return config.scales


def measured(config, images):
    """The pictures that colours are measured of: all, or of those on the disk a sample."""
    if config.stored != 'disk' or len(images) <= MEASURED:
        return images
    return images.take(np.random.default_rng(config.seed).permutation(len(images))[:MEASURED])


class State(NamedTuple):
    """variables  parameters and batch statistics.

    mean    their average over the steps since averaging began; {} without.
    memory  the optimiser's.
    n       steps taken.
    """

    variables: Any
    mean: Any
    memory: Any
    n: jax.Array


def build(config):
    rate_fn = sgd.schedule(
        config.schedule, config.learning_rate, config.steps,
        drops=config.drops, every=config.every, factor=config.factor,
    )  # fmt: skip
    optimizer = optax.chain(
        optax.add_decayed_weights(
            config.weight_decay, part(layers.weight_decay_mask, which=config.decayed)
        ),
        train_step.bias_lr_multiplier(config.bias_rate),
        sgd.momentum(rate_fn, config.momentum, config.convention),
    )

    def init(key, batch):
        variables = network_of(config, len(batch['classes'])).init(key, batch['images'])
        if batch['start']:
            variables = transfer.fill_missing(batch['start'], variables)
        mean = variables if config.average_from < 1 else {}
        return State(variables, mean, optimizer.init(variables['params']), jnp.int32(0))

    def step(state, batch, key, *, axis_name=None):
        network = network_of(config, len(batch['classes']))
        variables, memory, metrics = train_step.train_step(
            network, optimizer, state.variables, state.memory, batch, key, Reduce(axis_name)
        )
        if config.largest_filter:
            variables['params'] = zfnet.renormalize_filters(
                variables['params'], config.largest_filter
            )
        mean = state.mean
        if config.average_from < 1:
            mean = sgd.averaged(mean, variables, state.n - int(config.average_from * config.steps))
        return State(variables, mean, memory, state.n + 1), metrics

    def evaluate(state, evaluation):
        network = network_of(config, len(evaluation['classes']))

        def quality(batch):
            images = normalize.normalize(batch[0], evaluation['scale'])
            if config.looked_at:
                images = resize.resize(images, (config.looked_at, config.looked_at))
            seen = transforms.center_crop(images, config.crop or images.shape[1])
            logits, _ = network.apply(state.mean or state.variables, seen)
            return train_step.eval_metrics(logits, batch[1])

        measured = jax.lax.map(quality, (evaluation['images'], evaluation['labels']))
        return jax.tree.map(jnp.mean, measured)

    return train.Task(init, step, evaluate)


def probabilities(config, state, loaded, kind) -> np.ndarray:
    """[n, classes] of all test pictures by one kind of looks."""
    task, crop, scale = (loaded.extra[name] for name in ('task', 'crop', 'scale'))
    return multi_crop.predict_probs(
        network_of(config, len(task.class_names)), state.mean or state.variables, task.test_images, kind,
        crop_size=crop, scales=scales_of(config, kind), batch_size=config.batch_size,
        normalize_fn=part(normalize.normalize, normalization=scale),
        progress_fn=lambda starts: train.track(config, starts, f'views {kind}'),
    )  # fmt: skip


def report(config, state, loaded):
    from lecture4.figures import classification

    task = loaded.extra['task']
    labels, n, n_classes = task.test_labels, len(task.test_labels), len(task.class_names)
    asked = {'this network': (config, state, loaded)}
    for path in config.ensemble:
        asked[path] = load_run.load(path, config, data, build)
        if not np.array_equal(asked[path][2].extra['task'].test_labels, labels):
            raise train.UsageError(f'--ensemble {path} was tested on other pictures')
    told = [k for k in (1, 5) if k < n_classes]
    p, rows, metrics = np.zeros((n, n_classes)), [], {}
    for kind in config.views:
        began = time.monotonic()
        found = {name: probabilities(*member, kind) for name, member in asked.items()}
        seconds = time.monotonic() - began
        if len(found) > 1:
            found['mean of all'] = np.mean(list(found.values()), axis=0)
        for name, p in found.items():
            ranks = scores.ranks(p, labels)
            shares = [_share(int((ranks < k).sum()), n) for k in told]
            rows.append((kind, name, *shares, f'{seconds:.1f}'))
            metrics |= {f'top{k}_{kind}': float((ranks < k).mean()) for k in told}
    counts = scores.confusion(labels, p.argmax(1), n_classes)
    names = ('first answer', 'among five')[: len(told)]
    return train.Report(
        metrics=metrics,
        tables=(
            train.Table(
                f'{n} test pictures told right, %', ('views', 'network', *names, 'seconds'), tuple(rows),
                "In brackets Wilson's 95 % intervals. Seconds: of all networks together.",
            ),
        ),
        pictures={
            'confusion': train.Picture(
                classification.confusion_matrix(counts, task.class_names),
                'Test pictures by true and given class, of the last row of the table.',
            ),
            'worst': train.Picture(
                classification.top_losses(task.test_images, p, labels, task.class_names),
                'The pictures whose own class is given the least probability: what each is, and what '
                'is answered.',
            ),
        },
        summary=f'{config.network} on {config.source}: of {n} test pictures of {n_classes} classes '
        f'{rows[-1][2]} % are told right ({rows[-1][1]}, views: {rows[-1][0]}).',
    )  # fmt: skip


def _share(n_right, n):
    low, high = scores.wilson(n_right, n)
    return f'{100 * n_right / n:.1f} ({100 * low:.1f} to {100 * high:.1f})'


if __name__ == '__main__':
    train.main(Config, data, build, report, PRESETS, SWEEPS)
