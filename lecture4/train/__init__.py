"""Training: what experiment files take from here, and what reads their runs.

Start from:

- `train.main`: the command line of an experiment.
- `train.supervised`: a task of a flax network, a loss and an optax optimizer.
- `train.optimize`: a task of any loss of parameters.
- `train.in_memory`: batches of arrays.
- `train.load`: the model of a finished run.
"""

from lecture4.train.caption_sources import (
    Captioned,
    captioned_data,
    load_captioned,
    measured_splits,
)
from lecture4.train.cli import main
from lecture4.train.config import Config, RunOptions, UsageError, require
from lecture4.train.distorted_sources import Distorted, distorted_data
from lecture4.train.error_figures import error_figures
from lecture4.train.fields import (
    AtLeast0,
    AtLeast1,
    AtLeast2,
    AtLeast4,
    AtLeast8,
    Classes,
    Evaluation,
    Floats,
    Fraction,
    FractionBelow1,
    InsideUnit,
    Ints,
    Names,
    NonNegative,
    Positive,
    PositiveFraction,
)
from lecture4.train.history import Recorded, entries, record, record_metrics
from lecture4.train.image_options import ImageFiles, ImageOptions, SplitImages, SquareImages
from lecture4.train.image_sources import (
    DICTIONARY_METRICS,
    PatchFeatures,
    SelfTaught,
    check_label_counts,
    load_self_taught,
    self_taught_data,
)
from lecture4.train.initial_weights import (
    Init,
    init_normalization,
    pretrained_model,
    read_init,
)
from lecture4.train.labeled_images import (
    LabeledImages,
    image_batches,
    labeled_image_data,
    load_labeled_images,
)
from lecture4.train.labeled_sentences import LabeledSentences, cross_validate
from lecture4.train.learners import (
    State,
    from_learner,
    lbfgs,
    on_variables,
    optimize,
    phases,
    supervised,
    variables,
)
from lecture4.train.metrics import Metric
from lecture4.train.optimizers import SGDRecipe, sgd_recipe
from lecture4.train.parallel_tasks import parallel
from lecture4.train.progress import track
from lecture4.train.report import Figure, Report, Table
from lecture4.train.saved_model import Model, load, load_runs
from lecture4.train.stacked_task import random_subsets, stacked, subsets_in_memory
from lecture4.train.sweep.variants import grid, vary_one
from lecture4.train.tables import label_table
from lecture4.train.task import (
    Data,
    Spec,
    Task,
    evaluate,
    frozen,
    full_batch,
    gather_each,
    in_memory,
    on_params,
    sources_in_memory,
)

__all__ = [
    'DICTIONARY_METRICS',
    'AtLeast0',
    'AtLeast1',
    'AtLeast2',
    'AtLeast4',
    'AtLeast8',
    'Captioned',
    'Classes',
    'Config',
    'Data',
    'Distorted',
    'Evaluation',
    'Figure',
    'Floats',
    'Fraction',
    'FractionBelow1',
    'ImageFiles',
    'ImageOptions',
    'Init',
    'InsideUnit',
    'Ints',
    'LabeledImages',
    'LabeledSentences',
    'Metric',
    'Model',
    'Names',
    'NonNegative',
    'PatchFeatures',
    'Positive',
    'PositiveFraction',
    'Recorded',
    'Report',
    'RunOptions',
    'SGDRecipe',
    'SelfTaught',
    'Spec',
    'SplitImages',
    'SquareImages',
    'State',
    'Table',
    'Task',
    'UsageError',
    'captioned_data',
    'check_label_counts',
    'cross_validate',
    'distorted_data',
    'entries',
    'error_figures',
    'evaluate',
    'from_learner',
    'frozen',
    'full_batch',
    'gather_each',
    'grid',
    'image_batches',
    'in_memory',
    'init_normalization',
    'label_table',
    'labeled_image_data',
    'lbfgs',
    'load',
    'load_captioned',
    'load_labeled_images',
    'load_runs',
    'load_self_taught',
    'main',
    'measured_splits',
    'on_params',
    'on_variables',
    'optimize',
    'parallel',
    'phases',
    'pretrained_model',
    'random_subsets',
    'read_init',
    'record',
    'record_metrics',
    'require',
    'self_taught_data',
    'sgd_recipe',
    'sources_in_memory',
    'stacked',
    'subsets_in_memory',
    'supervised',
    'track',
    'variables',
    'vary_one',
]
