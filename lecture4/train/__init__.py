"""What experiment files take from here."""

from lecture4.train.cli import main
from lecture4.train.config import Config, RunOptions, UsageError, require
from lecture4.train.fields import (
    AtLeast0,
    AtLeast1,
    AtLeast2,
    AtLeast4,
    AtLeast8,
    Classes,
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
from lecture4.train.image_sources import SelfTaught, load_self_taught
from lecture4.train.learners import (
    State,
    from_learner,
    lbfgs,
    optimize,
    parallel,
    phases,
    supervised,
    variables,
)
from lecture4.train.metrics import Metric
from lecture4.train.progress import track
from lecture4.train.report import Figure, Report, Table
from lecture4.train.sweep.variants import grid
from lecture4.train.task import Data, Spec, Task, evaluate, full_batch, in_memory

__all__ = [
    'AtLeast0',
    'AtLeast1',
    'AtLeast2',
    'AtLeast4',
    'AtLeast8',
    'Classes',
    'Config',
    'Data',
    'Figure',
    'Floats',
    'Fraction',
    'FractionBelow1',
    'InsideUnit',
    'Ints',
    'Metric',
    'Names',
    'NonNegative',
    'Positive',
    'PositiveFraction',
    'Report',
    'RunOptions',
    'SelfTaught',
    'Spec',
    'State',
    'Table',
    'Task',
    'UsageError',
    'evaluate',
    'from_learner',
    'full_batch',
    'grid',
    'in_memory',
    'lbfgs',
    'load_self_taught',
    'main',
    'optimize',
    'parallel',
    'phases',
    'require',
    'supervised',
    'track',
    'variables',
]
