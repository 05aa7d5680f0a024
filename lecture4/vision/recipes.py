"""Training recipes of the papers for ImageNet, as options of an experiment on labeled images.

    PRESETS = {'smoke': {...}, **recipes.IMAGENET}

The options are those of `train.LabeledImages` and `train.SGDRecipe`, and 'network', 'normalization',
'max_filter_rms', 'polyak_start', 'eval_resize', 'test_crops' and 'scales' as
experiments/convnets/image_classification.py defines them. Where a paper divides its learning rate when the validation
error stops decreasing, these recipes divide it at fixed fractions of the steps. Images are resized to squares.
"""

from typing import Any

from lecture4.vision.models import zfnet

_SHARED = {
    'image_size': 256, 'crop_size': 224, 'test_split': 'val', 'augmentation': 'crop', 'flips': True,
    'color_noise': 0.1, 'normalization': 'mean_image', 'learning_rate': 0.01, 'boundaries': (0.3, 0.6, 0.9),
    'convention': 'caffe', 'data_placement': 'disk', 'num_eval': 1024,
}  # fmt: skip

# Krizhevsky et al. 2012; Zeiler & Fergus 2014; Simonyan & Zisserman 2015, network D (its weights are He's
# random ones, not those of network A); Szegedy et al. 2015; He et al. 2016.
IMAGENET: dict[str, dict[str, Any]] = {
    'alexnet': {**_SHARED, 'network': 'alexnet', 'crop_size': 227, 'batch_size': 128, 'steps': 900_000,
                'weight_decay': 5e-4, 'weight_decay_mask': 'kernels', 'bias_lr_multiplier': 2.0,
                'test_crops': ('center', '10')},
    'zfnet': {**_SHARED, 'network': 'zfnet', 'batch_size': 128, 'steps': 700_000, 'color_noise': 0.0,
              'weight_decay': 0.0, 'max_filter_rms': zfnet.MAX_FILTER_RMS, 'test_crops': ('center', '10')},
    'vgg': {**_SHARED, 'network': 'vgg_d', 'batch_size': 256, 'steps': 370_000, 'image_size': 512,
            'eval_resize': 256, 'augmentation': 'jitter', 'jitter': (256, 512), 'normalization': 'mean_color',
            'weight_decay': 5e-4, 'test_crops': ('center', 'dense', '150'), 'scales': (256, 384, 512)},
    'googlenet': {**_SHARED, 'network': 'googlenet_auxiliary', 'batch_size': 256, 'steps': 300_000,
                  'image_size': 352, 'eval_resize': 256, 'augmentation': 'inception', 'color_jitter': 0.5,
                  'normalization': 'mean_color', 'schedule': 'staircase', 'decay_steps': 8 / 60,
                  'decay_rate': 0.96, 'weight_decay': 2e-4, 'weight_decay_mask': 'kernels',
                  'bias_lr_multiplier': 2.0, 'polyak_start': 0.8, 'test_crops': ('center', '10', '144')},
    'resnet': {**_SHARED, 'network': 'resnet_50', 'batch_size': 256, 'steps': 450_000, 'image_size': 480,
               'eval_resize': 256, 'learning_rate': 0.1, 'augmentation': 'jitter', 'boundaries': (1 / 3, 2 / 3),
               'test_crops': ('center', '10', 'dense'), 'scales': (224, 256, 384, 480, 640)},
}  # fmt: skip
