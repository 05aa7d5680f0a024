"""Image classification with the classic convolutional networks, by the recipes of their papers.

Presets alexnet, zfnet, vgg, googlenet and resnet are the recipes for ImageNet: --source dir:PATH with
PATH/train/CLASS and PATH/val/CLASS. Where a paper divides its learning rate when the validation error stops
falling, they divide it at fixed fractions of the steps. Images are resized to squares, kept on the devices, in
host memory or (these five) on disk, and read ahead of the step that uses them; augmentation runs on the
devices, inside the compiled step. Other than in the papers, VGG's deeper networks start from He's random
weights, not from network A; networks with batch norm are tested with averaged parameters and averaged batch
statistics.

Run:      python -m experiments.convnets.image_classification                      (digits, no download)
          python -m experiments.convnets.image_classification --preset textures
          python -m experiments.convnets.image_classification --preset cifar10 --manual_dir PATH
          ... --preset resnet --source dir:PATH --network resnet_50_v1_5 --init resnet50.pth --new_head
          ... --ensemble runs/a runs/b --test_crops center 10       (with the networks of other finished runs)
Hardware: 1 CPU core, digits and textures 30 s, cifar10 4 min (of which 1 min for the 11 crops of 10,000 test
          images); the papers' recipes need accelerators
Results:  test accuracy in %, with 95 % intervals; cifar_resnet_8, seed 0, 2 CPU cores

          | preset                     | center              | 10-crop             |
          |----------------------------|---------------------|---------------------|
          | digits                     | 97.8 (96.1 to 98.8) |                     |
          | digits, --seed 1           | 97.4                |                     |
          | digits, ensemble of both   | 97.8                |                     |
          | textures                   | 97.4 (97.0 to 97.8) | 98.2 (97.9 to 98.5) |
          | cifar10, 1000 steps of 64  | 60.3 (59.3 to 61.2) | 61.3 (60.3 to 62.2) |

          Published top-1 / top-5 errors on the ImageNet validation set in %; not run here

          | network   | test crops            | published   |
          |-----------|-----------------------|-------------|
          | alexnet   | 10                    | 40.7 / 18.2 |
          | zfnet     | 10                    | 38.4 / 16.5 |
          | vgg_d     | dense, three scales   | 24.8 / 7.5  |
          | googlenet | 144                   | - / 7.9     |
          | resnet_50 | 10                    | 22.9 / 6.7  |
          | resnet_50 | dense, five scales    | 20.7 / 5.3  |
"""

import dataclasses
import functools
import time
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import MinLen

from lecture4 import train
from lecture4.data import batches
from lecture4.data import images as image_data
from lecture4.data.images import normalize, prefetch, transforms
from lecture4.ops import metrics as scores
from lecture4.ops import resize
from lecture4.train import load_run
from lecture4.train.optimizers import Convention, piecewise_constant, sgd
from lecture4.vision import layers, multi_crop, train_step
from lecture4.vision.models import registry, zfnet
from lecture4.vision.weights import pretrained, transfer

NUM_MEASURED = 4096  # images on disk from which means and standard deviations are estimated
CHANNELS = 3  # of the networks' inputs; grayscale images are repeated


@dataclasses.dataclass(frozen=True)
class Config(train.Config):
    steps: train.AtLeast1 = 500
    batch_size: train.AtLeast1 = 32
    # Model name; an unknown name prints the list.
    network: str = 'cifar_resnet_8'
    # Data type of the computation; parameters are float32.
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    # File of torchvision or timm weights to start from, .pth or .safetensors.
    init: str = ''
    # Initialize all layers but the classifier from --init.
    new_head: bool = False

    # Source of labeled images: textures, digits, mnist, cifar10, dir:PATH, npz:PATH.
    source: str = 'digits'
    # Height and width of the squares that images (or their crops, with --split_crops_left_right) are
    # brought to; 0 keeps their size.
    image_size: train.AtLeast0 = 0
    # Train on crops of --image_size from the left half of each image and test on crops of the right half.
    split_crops_left_right: bool = False
    # Split of the source to test on.
    test_split: str = 'test'
    # Fraction of the training images to test on in place of the test split.
    held_out: train.FractionBelow1 = 0.0
    # What to do with images of a dir: source that cannot be read: stop with an error (refuse) or skip them.
    unreadable: Literal['refuse', 'skip'] = 'refuse'
    # Where images are kept; disk (for a dir: source with --image_size) reads and resizes them per batch.
    data_placement: Literal['devices', 'host', 'disk'] = 'devices'
    # Sample classes equally often, by downsampling the frequent ones.
    class_balanced: bool = False

    # Height and width of the network's input; 0 takes that of the images.
    crop_size: train.AtLeast0 = 0
    # Crops in training: center (none), random (crop), random after padding (pad), random after resizing
    # within --jitter (jitter), Inception's random boxes (inception).
    augmentation: transforms.Kind = 'pad'
    # Padding with the mean color in pixels, with --augmentation pad.
    padding: train.AtLeast0 = 1
    # Smallest and largest length of the shorter side, with --augmentation jitter.
    jitter: tuple[train.AtLeast1, train.AtLeast1] = (256, 480)
    # Mirror images at random.
    flips: bool = False
    # Standard deviation of the noise along the principal colors; 0.1 in the papers.
    color_noise: train.NonNegative = 0.0
    # Largest relative change of contrast, brightness and saturation.
    color_jitter: train.FractionBelow1 = 0.0
    # Normalization of pixel values; auto takes that of the weights with --init, otherwise standard.
    normalization: Literal['auto', normalize.Kind] = 'auto'

    # Initial learning rate.
    learning_rate: train.Positive = 0.05
    # Learning rate schedule: times --decay_rate at --boundaries (piecewise) or every --decay_steps
    # (staircase), or in proportion to the square root of the remaining steps (polynomial).
    schedule: Literal['piecewise', 'staircase', 'polynomial'] = 'piecewise'
    # Fractions of the steps at which the learning rate decays, with --schedule piecewise.
    boundaries: tuple[train.Fraction, ...] = (0.5, 0.75)
    # Interval between decays as a fraction of the steps, with --schedule staircase.
    decay_steps: train.Positive = 0.1
    # Factor of each decay of the learning rate.
    decay_rate: train.Positive = 0.1
    # Momentum of gradients (torch) or of updates (caffe).
    momentum: train.FractionBelow1 = 0.9
    # Whether the learning rate multiplies the momentum buffer (torch) or the gradients before it (caffe).
    convention: Convention = 'torch'
    # Weight decay, added to the gradients.
    weight_decay: train.NonNegative = 1e-4
    # Parameters that decay: kernels only, or biases and batch norm parameters too.
    weight_decay_mask: Literal['kernels', 'all'] = 'all'
    # Multiplier of the learning rate of biases.
    bias_lr_multiplier: train.Positive = 1.0
    # Bound of the root mean square of each convolution filter; 0 sets none.
    max_filter_rms: train.NonNegative = 0.0
    # Fraction of the steps after which parameters are averaged (Polyak) for testing; 1 never averages.
    polyak_start: train.Fraction = 1.0

    # Test crops, each a row of the table: the center, 10, 144, 150 crops, or the whole image (dense).
    test_crops: Annotated[tuple[multi_crop.Kind, ...], MinLen(1)] = ('center',)
    # Size that images are resized to for center and 10 crops and for evaluations during training; 0
    # keeps their size.
    eval_resize: train.AtLeast0 = 0
    # Lengths of the shorter side for 144 and 150 crops and dense testing. Default: those of the papers,
    # and for dense testing the size of the images.
    scales: tuple[train.AtLeast1, ...] = ()
    # Number of test images in evaluations during training.
    num_eval: train.AtLeast1 = 256
    # Directories of other finished runs whose probabilities are averaged with those of this one.
    ensemble: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        network_of(self, 1)


METRICS = (
    train.Metric('accuracy', 'fraction', 'higher', 'top-1 accuracy', primary=True),
    train.Metric('top5_accuracy', 'fraction', 'higher', 'top-5 accuracy'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
    train.Metric('walltime', 's', 'lower', 'walltime'),
)
_PAPER = {
    'image_size': 256, 'crop_size': 224, 'test_split': 'val', 'augmentation': 'crop', 'flips': True,
    'color_noise': 0.1, 'normalization': 'mean_image', 'learning_rate': 0.01, 'boundaries': (0.3, 0.6, 0.9),
    'convention': 'caffe', 'data_placement': 'disk', 'num_eval': 1024,
}  # fmt: skip
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 16, 'num_eval': 32, 'test_crops': ('center', 'dense')},
    'textures': {'source': 'textures', 'split_crops_left_right': True, 'image_size': 16, 'crop_size': 12,
                 'augmentation': 'crop', 'flips': True, 'steps': 300, 'test_crops': ('center', '10')},
    'cifar10': {'source': 'cifar10', 'crop_size': 28, 'augmentation': 'crop', 'flips': True, 'steps': 1000,
                'batch_size': 64, 'learning_rate': 0.1, 'num_eval': 1024, 'test_crops': ('center', '10')},
    'alexnet': {**_PAPER, 'network': 'alexnet', 'crop_size': 227, 'batch_size': 128, 'steps': 900_000,
                'weight_decay': 5e-4, 'weight_decay_mask': 'kernels', 'bias_lr_multiplier': 2.0,
                'test_crops': ('center', '10')},
    'zfnet': {**_PAPER, 'network': 'zfnet', 'batch_size': 128, 'steps': 700_000, 'color_noise': 0.0,
              'weight_decay': 0.0, 'max_filter_rms': zfnet.MAX_FILTER_RMS, 'test_crops': ('center', '10')},
    'vgg': {**_PAPER, 'network': 'vgg_d', 'batch_size': 256, 'steps': 370_000, 'image_size': 512,
            'eval_resize': 256, 'augmentation': 'jitter', 'jitter': (256, 512), 'normalization': 'mean_color',
            'weight_decay': 5e-4, 'test_crops': ('center', 'dense', '150'), 'scales': (256, 384, 512)},
    'googlenet': {**_PAPER, 'network': 'googlenet_auxiliary', 'batch_size': 256, 'steps': 300_000,
                  'image_size': 352, 'eval_resize': 256, 'augmentation': 'inception', 'color_jitter': 0.5,
                  'normalization': 'mean_color', 'schedule': 'staircase', 'decay_steps': 8 / 60,
                  'decay_rate': 0.96, 'weight_decay': 2e-4, 'weight_decay_mask': 'kernels',
                  'bias_lr_multiplier': 2.0, 'polyak_start': 0.8, 'test_crops': ('center', '10', '144')},
    'resnet': {**_PAPER, 'network': 'resnet_50', 'batch_size': 256, 'steps': 450_000, 'image_size': 480,
               'eval_resize': 256, 'learning_rate': 0.1, 'augmentation': 'jitter', 'boundaries': (1 / 3, 2 / 3),
               'test_crops': ('center', '10', 'dense'), 'scales': (224, 256, 384, 480, 640)},
}  # fmt: skip
SWEEPS = {
    'learning_rate': train.grid(learning_rate=(0.01, 0.05, 0.2), seed=(0, 1, 2)),
    'augmentation': train.grid(augmentation=('none', 'crop', 'inception'), seed=(0, 1, 2)),
}


def network_of(config, num_classes):
    return registry.create(config.network, num_classes, dtype=jnp.dtype(config.dtype))


def data(config):
    size = {'crop_size' if config.split_crops_left_right else 'image_size': config.image_size}
    task = image_data.load(
        config.source,
        **size,
        pixels='stored',
        group_by_class=False,
        test_split=config.test_split,
        held_out=config.held_out,
        on_disk=config.data_placement == 'disk',
        seed=config.seed,
        unreadable=config.unreadable,
        **config.data_kwargs(),
    )
    x, labels = task.train_images, task.train_labels
    size = x.shape[1]
    if x.shape[2] != size:
        raise train.UsageError(
            f'{config.source}: images of {size} x {x.shape[2]} are not square; bring them to squares '
            'with --image_size'
        )
    augmentation = transforms.Augmentation(
        config.crop_size or size,
        config.augmentation,
        config.padding,
        config.jitter,
        config.flips,
        config.color_noise,
        config.color_jitter,
    )
    network = network_of(config, len(task.class_names))
    normalization = normalization_of(config, network, x)
    prepare_images = functools.partial(
        transforms.prepare, augmentation=augmentation, normalization=normalization
    )
    try:  # by shapes alone: the crop has to fit the images, and the network the crop
        example = jax.eval_shape(prepare_images, jax.random.key(0), x[:1])
        jax.eval_shape(network.init, jax.random.key(0), example)
        for kind in config.test_crops:
            scales = scales_of(config, kind)
            multi_crop.plan_for(kind, (size, size), augmentation.crop_size, scales)
    except ValueError as error:
        name = f'--network {config.network} --crop_size {augmentation.crop_size}'
        raise ValueError(f'{name}: {error}') from None
    for directory in config.ensemble:
        load_run.config(directory, config)
    weights = None
    if config.init:
        weights = transfer.load(network, config.init, new_head=config.new_head)
    arrays = {'images': x, 'labels': labels}
    on_devices = config.data_placement == 'devices'
    if config.class_balanced:
        sample = batches.balanced(labels, config.batch_size, seed=config.seed)
    else:
        sample = functools.partial(
            batches.indices, config.seed, num_examples=len(labels), batch_size=config.batch_size
        )

    def rows_of(n, start=0, stop=None):
        rows = sample(n)[start:stop]
        return rows if on_devices else {name: array[rows] for name, array in arrays.items()}

    @functools.cache
    def read_ahead(start, stop):
        batch = functools.partial(rows_of, start=start, stop=stop)
        return prefetch.prefetch(batch) if config.data_placement == 'disk' else batch

    def prepare(device_arrays, batch, key):
        if on_devices:
            batch = {name: array[batch] for name, array in device_arrays.items()}
        return {'images': prepare_images(key, batch['images']), 'labels': batch['labels']}

    num_eval = min(config.num_eval, len(task.test_images))
    chunk_size = min(config.batch_size, num_eval)
    order = np.random.default_rng(config.seed).permutation(len(task.test_images))
    rows = order[: num_eval // chunk_size * chunk_size].reshape(-1, chunk_size)
    shape = (augmentation.crop_size, augmentation.crop_size, CHANNELS)
    constants = {'normalization': normalization, 'weights': weights}
    return train.Data(
        read_ahead(0, None),
        device_arrays=arrays if on_devices else {},
        prepare=prepare,
        evaluation={'images': task.test_images[rows], 'labels': task.test_labels[rows]},
        spec=train.Spec(shape, task.class_names, constants),
        report_data=task,
        local_batch=lambda n, start, stop: read_ahead(start, stop)(n),
    )


def normalization_of(config, network, images):
    """The normalization of the weights with --init, or one computed from all images, or of a sample on disk."""
    if config.normalization == 'auto' and config.init:
        expected = pretrained.preprocessing(network)
        return normalize.from_mean_std(expected.mean, expected.std)
    if config.data_placement == 'disk' and len(images) > NUM_MEASURED:
        rows = np.random.default_rng(config.seed).permutation(len(images))[:NUM_MEASURED]
        images = images.take(rows)
    kind = 'standard' if config.normalization == 'auto' else config.normalization
    return normalize.create(kind, images, CHANNELS)


def scales_of(config, kind):
    """Lengths of the shorter side at which a kind of test crops is taken; () its own."""
    if kind in ('center', '10'):
        return (config.eval_resize,) if config.eval_resize else ()
    return config.scales


def build(config, spec):
    if config.schedule == 'piecewise':
        schedule = piecewise_constant(
            config.learning_rate, config.steps, config.boundaries, config.decay_rate
        )
    elif config.schedule == 'staircase':
        interval = max(round(config.decay_steps * config.steps), 1)
        schedule = optax.exponential_decay(
            config.learning_rate, interval, config.decay_rate, staircase=True
        )
    else:
        schedule = optax.polynomial_schedule(config.learning_rate, 0.0, 0.5, config.steps)
    mask = functools.partial(layers.weight_decay_mask, which=config.weight_decay_mask)
    optimizer = optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask),
        train_step.bias_lr_multiplier(config.bias_lr_multiplier),
        sgd(schedule, config.momentum, config.convention),
    )
    project = None
    if config.max_filter_rms:
        project = functools.partial(zfnet.renormalize_filters, max_filter_rms=config.max_filter_rms)

    def evaluate(variables, evaluation):
        def chunk_metrics(chunk):
            logits = center_logits(config, spec, variables, chunk['images'])
            return train_step.eval_metrics(logits, chunk['labels'])

        return jax.tree.map(jnp.mean, jax.lax.map(chunk_metrics, evaluation))

    supervised = functools.partial(
        train.supervised,
        network_of(config, spec.num_classes),
        optimizer,
        train_step.loss,
        evaluate,
        polyak_start=int(config.polyak_start * config.steps) if config.polyak_start < 1 else None,
        project=project,
    )
    if spec.constants['weights'] is None:
        return supervised()

    def start(state):  # the file may have no classifier: that of the new state is kept
        initialized = {'params': state.params, **state.model_state['network']}
        initial = transfer.fill_missing(spec.constants['weights'], initialized)
        initialize = supervised(initial=initial).start
        assert initialize is not None
        return initialize(state)

    return supervised()._replace(start=start)


def center_logits(config, spec, variables, images):
    x = normalize.normalize(images, spec.constants['normalization'])
    if config.eval_resize:
        x = resize.resize(x, (config.eval_resize, config.eval_resize))
    x = resize.center_crop(x, spec.shape[0])
    return network_of(config, spec.num_classes).apply(variables, x)[0]


def apply(config, spec):
    def predict(state, images):
        """Class probabilities of images as they are stored, by their center crop, [n, classes]."""
        logits = center_logits(config, spec, train.variables(state), images)
        return jax.nn.softmax(logits.astype(jnp.float32))

    return {'predict': predict}


def predict_test_set(config, state, loaded, kind):
    """Class probabilities of all test images by one kind of test crops, [n, classes]."""
    return multi_crop.predict_probs(
        network_of(config, loaded.spec.num_classes),
        train.variables(state),
        loaded.report_data.test_images,
        kind,
        crop_size=loaded.spec.shape[0],
        scales=scales_of(config, kind),
        batch_size=config.batch_size,
        normalize_fn=functools.partial(
            normalize.normalize, normalization=loaded.spec.constants['normalization']
        ),
        progress_fn=lambda starts: train.track(config, starts, f'test crops {kind}'),
    )


def report(config, state, loaded):
    from lecture4.figures import classification

    task, num_classes = loaded.report_data, loaded.spec.num_classes
    labels, n = task.test_labels, len(task.test_labels)
    runs = {'this network': (config, state, loaded)}
    for path in config.ensemble:
        runs[path] = load_run.load(path, config, data, build)
        if not np.array_equal(runs[path][2].report_data.test_labels, labels):
            raise train.UsageError(f'--ensemble {path}: that run has other test images')
    records, p = [], np.zeros((n, num_classes))
    for kind in config.test_crops:
        began = time.monotonic()
        probs = {name: predict_test_set(*run, kind) for name, run in runs.items()}
        walltime = time.monotonic() - began
        if len(probs) > 1:
            probs['ensemble'] = np.mean(list(probs.values()), axis=0)
        for name, p in probs.items():
            ranks = scores.ranks(p, labels)
            low, high = scores.wilson_interval(int((ranks < 1).sum()), n)
            record = {'test_crops': kind, 'network': name, 'accuracy': (ranks < 1).mean()}
            record['95 % interval'] = f'{100 * low:.1f} to {100 * high:.1f}'
            if num_classes > 5:
                record['top5_accuracy'] = (ranks < 5).mean()
            records.append(record | {'walltime': walltime})
    last, accuracy = records[-1], float(records[-1]['accuracy'])
    counts = scores.confusion_matrix(labels, p.argmax(1), num_classes)
    return train.Report(
        metrics={'accuracy': accuracy},
        tables=(
            train.Table(
                f'Accuracy on {n} test images',
                records,
                ('test_crops', 'network'),
                caption="Wilson's 95 % intervals of the top-1 accuracy. Walltime: of all networks together.",
            ),
        ),
        figures={
            'confusion': train.Figure(
                classification.confusion_matrix(counts, task.class_names),
                'Test images by true and predicted class, of the last row of the table.',
            ),
            'mistakes': train.Figure(
                classification.top_losses(task.test_images, p, labels, task.class_names),
                'Test images whose own class has the least probability → predicted class.',
            ),
        },
        summary=f'{config.network} on {config.source}: top-1 accuracy {100 * accuracy:.1f} % on {n} test '
        f'images of {num_classes} classes ({last["network"]}, test crops: {last["test_crops"]}).',
    )


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
