"""Image classification with the classic convolutional networks, by the recipes of their papers.

Presets alexnet, zfnet, vgg, googlenet and resnet are the recipes for ImageNet (lecture4/vision/recipes.py), for
accelerators: --source dir:PATH with PATH/train/CLASS and PATH/val/CLASS, kept on disk and read ahead of the step.
Augmentation runs inside the compiled step. With averaged parameters, batch statistics are averaged too.

Run:      python -m experiments.convnets.image_classification                      (digits, no download)
          ... --preset textures; or --preset cifar10 --manual_dir PATH
          ... --preset resnet --source dir:PATH --network resnet_50_v1_5 --init resnet50.pth --new_head
          ... --network resnet_50_v1_5 --init resnet50.pth --stage predict --input dir:PATH      (no training)
          ... --ensemble runs/a runs/b --test_crops center 10       (with the networks of other finished runs)
Hardware: 1 CPU core, digits and textures 30 s, cifar10 4 min (1 min of them for 11 crops of 10,000 images)
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
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import MinLen

from lecture4 import train
from lecture4.data.images import normalize
from lecture4.vision import ensembles, multi_crop, recipes, train_step
from lecture4.vision.models import registry, zfnet
from lecture4.vision.weights import pretrained, transfer


@dataclasses.dataclass(frozen=True)
class Config(train.LabeledImages, train.SGDRecipe):
    steps: train.AtLeast1 = 500
    batch_size: train.AtLeast1 = 32
    # Model name; an unknown name prints the list.
    network: str = 'cifar_resnet_8'
    # Data type of the computation; parameters are float32.
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    # Initial weights: a file of torchvision or timm (.pth, .safetensors), a run or a checkpoint of one.
    init: str = ''
    # Initialize all layers except the classifier from --init.
    new_head: bool = False
    # Normalization of pixel values; auto takes that of the weights with --init, otherwise standard.
    normalization: Literal['auto', normalize.Kind] = 'auto'
    # Upper bound of the root mean square of each convolution filter; 0 sets none.
    max_filter_rms: train.NonNegative = 0.0
    # Fraction of the steps after which parameters are averaged (Polyak) for testing; 1 never averages.
    polyak_start: train.Fraction = 1.0
    # Kinds of test crops, one row of the table each: the center, 10, 144, 150 crops, or the whole image (dense).
    test_crops: train.Evaluation[Annotated[tuple[multi_crop.Kind, ...], MinLen(1)]] = ('center',)
    # Size that images are resized to for center and 10 crops and during training; 0 keeps their size.
    eval_resize: train.Evaluation[train.AtLeast0] = 0
    # Shorter sides for 144 and 150 crops and dense testing. Default: the papers', for dense testing the images'.
    scales: train.Evaluation[tuple[train.AtLeast1, ...]] = ()
    # Directories of other finished runs whose probabilities are averaged with those of this one.
    ensemble: train.Evaluation[tuple[str, ...]] = ()

    def __post_init__(self):
        super().__post_init__()
        network_of(self, 1)


METRICS = (
    train.Metric('accuracy', 'fraction', 'higher', 'top-1 accuracy', primary=True),
    train.Metric('top5_accuracy', 'fraction', 'higher', 'top-5 accuracy'),
    train.Metric('loss', 'nats', 'lower', 'cross-entropy'),
    train.Metric('walltime', 's', 'lower', 'walltime'),
)
PRESETS = {
    'smoke': {'steps': 4, 'batch_size': 16, 'num_eval': 32, 'test_crops': ('center', 'dense')},
    'textures': {'source': 'textures', 'split_crops_left_right': True, 'image_size': 16, 'crop_size': 12,
                 'augmentation': 'crop', 'flips': True, 'steps': 300, 'test_crops': ('center', '10')},
    'cifar10': {'source': 'cifar10', 'crop_size': 28, 'augmentation': 'crop', 'flips': True, 'steps': 1000,
                'batch_size': 64, 'learning_rate': 0.1, 'num_eval': 1024, 'test_crops': ('center', '10')},
    **recipes.IMAGENET,
}  # fmt: skip
SWEEPS = {
    'learning_rate': train.grid(learning_rate=(0.01, 0.05, 0.2), seed=(0, 1, 2)),
    'augmentation': train.grid(augmentation=('none', 'crop', 'inception'), seed=(0, 1, 2)),
}


def network_of(config, num_classes):
    return registry.create(config.network, num_classes, dtype=jnp.dtype(config.dtype))


def data(config):
    task = train.load_labeled_images(config)
    network, init = network_of(config, len(task.class_names)), train.read_init(config.init)
    published, kind = pretrained.normalization(network), config.normalization
    normalization = train.init_normalization(kind, init, published, task.train_images, config.seed)
    size = config.crop_size or task.train_images.shape[1]
    options = {'new_head': config.new_head, 'image_shape': (size, size, 3)}
    weights = transfer.load(network, init.source, **options) if config.init else None
    loaded = train.labeled_image_data(config, task, normalization, weights=weights)
    shape, sizes = (
        task.test_images.shape[1:3],
        {'eval_resize': config.eval_resize, 'scales': config.scales},
    )
    try:
        multi_crop.check_sizes(network, size, shape, config.test_crops, **sizes)
    except ValueError as error:
        raise ValueError(f'--network {config.network}, crop size {size}: {error}') from None
    train.load_runs(config.ensemble, config)  # errors now, not after the training
    return loaded


def center_logits(config, spec, variables, images):
    network = network_of(config, spec.num_classes)
    x = normalize.normalize(images, spec.constants['normalization'])
    return multi_crop.center_logits(network, variables, x, spec.shape[0], config.eval_resize)


def build(config, spec):
    logits_of = functools.partial(center_logits, config, spec)
    project = functools.partial(zfnet.renormalize_filters, max_filter_rms=config.max_filter_rms)
    return train.supervised(
        network_of(config, spec.num_classes),
        train.sgd_recipe(config),
        train_step.loss,
        functools.partial(train_step.evaluate_chunks, logits_of),
        initial=spec.constants['weights'],
        polyak_start=int(config.polyak_start * config.steps) if config.polyak_start < 1 else None,
        project=project if config.max_filter_rms else None,
    )


def apply(config, spec):
    def predict(state, images):
        """Class probabilities of stored images by their center crop, [n, classes]."""
        logits = center_logits(config, spec, train.variables(state), images)
        return jax.nn.softmax(logits.astype(jnp.float32))

    to_torch = functools.partial(pretrained.to_torch, network_of(config, spec.num_classes))
    return {'predict': predict, 'state_dict': train.on_variables(to_torch)}


def pretrained_model(config):
    network = network_of(config, 1)
    network, weights = transfer.load_unchanged(network, train.read_init(config.init).source)
    names = pretrained.class_names(network.n_classes)
    return train.pretrained_model(weights, pretrained.preprocessing(network), names)


def predict_test_set(config, state, loaded, kind):
    """Class probabilities of all test images by one kind of test crops, [n, classes]."""
    spec, images = loaded.spec, loaded.report_data.test_images
    normalization = spec.constants['normalization']
    options = {'crop_size': spec.shape[0], 'batch_size': config.batch_size}
    options['scales'] = multi_crop.scales_for(kind, config.eval_resize, config.scales)
    options['normalize_fn'] = functools.partial(normalize.normalize, normalization=normalization)
    options['progress_fn'] = lambda starts: train.track(config, starts, f'test crops {kind}')
    variables, network = train.variables(state), network_of(config, spec.num_classes)
    return multi_crop.predict_probs(network, variables, images, kind, **options)


def report(config, state, loaded):
    task, labels = loaded.report_data, loaded.report_data.test_labels
    runs = {'this network': (config, state, loaded)}
    for path, model in train.load_runs(config.ensemble, config).items():
        runs[path] = (model.config, model.state, data(model.config))
        if not np.array_equal(runs[path][2].report_data.test_labels, labels):
            raise train.UsageError(f'--ensemble {path}: that run has different test images')
    predict_fns = {name: functools.partial(predict_test_set, *run) for name, run in runs.items()}
    records, probs = ensembles.compare(predict_fns, config.test_crops, labels)
    last, accuracy = records[-1], float(records[-1]['accuracy'])
    table = train.Table(
        f'Accuracy on {len(labels)} test images',
        records,
        ('test_crops', 'network'),
        caption="Wilson's intervals of top-1 accuracy. Walltime of all networks together. Figures are of the last row.",
    )
    figures = train.error_figures(task.test_images, probs, labels, task.class_names)
    summary = (
        f'{config.network} on {config.source}: top-1 accuracy {100 * accuracy:.1f} % on {len(labels)} test images '
        f'of {len(task.class_names)} classes ({last["network"]}, test crops: {last["test_crops"]}).'
    )
    return train.Report({'accuracy': accuracy}, (table,), figures, summary)


if __name__ == '__main__':
    train.main(Config, data, build, apply, report, metrics=METRICS, presets=PRESETS, sweeps=SWEEPS)
