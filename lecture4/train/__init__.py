"""What experiment files take from here."""

from lecture4.train.cli import main
from lecture4.train.config import Config, RunOptions, UsageError, require
from lecture4.train.fields import (
    AtLeast0,
    AtLeast1,
    AtLeast2,
    Floats,
    Fraction,
    FractionBelow1,
    Ints,
    Names,
    NonNegative,
    Positive,
    PositiveFraction,
)
from lecture4.train.learners import (
    State,
    from_learner,
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
from lecture4.train.task import Data, Spec, Task, evaluate, in_memory

__all__ = [
    'AtLeast0',
    'AtLeast1',
    'AtLeast2',
    'Config',
    'Data',
    'Figure',
    'Floats',
    'Fraction',
    'FractionBelow1',
    'Ints',
    'Metric',
    'Names',
    'NonNegative',
    'Positive',
    'PositiveFraction',
    'Report',
    'RunOptions',
    'Spec',
    'State',
    'Table',
    'Task',
    'UsageError',
    'evaluate',
    'from_learner',
    'grid',
    'in_memory',
    'main',
    'optimize',
    'parallel',
    'phases',
    'require',
    'supervised',
    'track',
    'variables',
]
