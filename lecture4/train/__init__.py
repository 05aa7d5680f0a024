"""What experiment files take from here."""

from lecture4.train.cli import main
from lecture4.train.config import Common, UsageError, require
from lecture4.train.progress import track
from lecture4.train.report import Picture, Report, Table, mean_and_error
from lecture4.train.sweep.variants import grid
from lecture4.train.task import Data, Task, evaluated, in_memory, optimise

__all__ = [
    'Common',
    'Data',
    'Picture',
    'Report',
    'Table',
    'Task',
    'UsageError',
    'evaluated',
    'grid',
    'in_memory',
    'main',
    'mean_and_error',
    'optimise',
    'require',
    'track',
]
