"""What every experiment's command line shares: how a run is carried out, and what it computes."""

import dataclasses
from typing import Any, Literal


class UsageError(Exception):
    """A mistake of the user's: shown as one line with the mend, exit code 2, no traceback."""


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run is carried out. These fields may change when a run is resumed."""

    preset: str = ''  # named settings of this experiment, listed above; later options override them
    sweep: str = ''  # run a named sweep of this experiment, listed above, instead of one run
    vectorize: Literal['auto', 'vmap', 'loop'] = (
        'auto'  # sweep as one program, or one after another
    )
    workdir: str = ''  # where results go; default runs/EXPERIMENT[-PRESET][-SWEEP]
    overwrite: bool = False  # throw away the run that workdir holds
    manual_dir: str = ''  # folder of data sets already fetched; default $LECTURE4_MANUAL_DIR
    data_dir: str = (
        ''  # where prepared data sets lie; default $TFDS_DATA_DIR, ~/tensorflow_datasets
    )
    download: bool = False  # allow fetching missing data sets over the network
    devices: int = (
        0  # devices to use; 0 takes all, on a CPU one. A CPU is divided into as many as asked
    )
    parallel: Literal['jit', 'pmap'] = 'jit'  # how a step is spread over devices: same numbers
    steps_per_call: int = 1  # steps compiled into one call (a scan)
    log_every: int = 10  # steps between rows of metrics.jsonl
    evaluate_every: int = 100  # steps between evaluations
    save_every: int = 100  # steps between checkpoints
    keep: int = 2  # checkpoints kept
    progress: Literal['auto', 'bar', 'plain', 'none'] = (
        'auto'  # auto: a bar on a terminal, else lines
    )
    cache_dir: str = 'auto'  # compiled programs are kept here between runs; 'none' turns it off

    def __post_init__(self):
        for name in ('steps_per_call', 'log_every', 'evaluate_every', 'save_every', 'keep'):
            require(self, name, getattr(self, name) >= 1, 'at least 1')
        require(self, 'devices', self.devices >= 0, 'the number of devices, or 0 for all')
        for name in ('log_every', 'evaluate_every', 'save_every'):
            value = getattr(self, name)
            lower = max(value // self.steps_per_call, 1) * self.steps_per_call
            require(
                self,
                name,
                value % self.steps_per_call == 0,
                f'a multiple of steps_per_call ({self.steps_per_call}), for instance {lower}',
            )


@dataclasses.dataclass(frozen=True)
class Common(Run):
    """What every experiment computes with; an experiment's own fields come on top."""

    seed: int = 0  # seed of all randomness: data order, initial values, noise, draws
    steps: int = 1000  # steps of training
    batch_size: int = 128  # examples in a step, over all devices

    def __post_init__(self):
        super().__post_init__()
        require(self, 'seed', 0 <= self.seed < 2**32, 'between 0 and 4294967295')
        require(self, 'steps', self.steps >= 1, 'at least 1')
        require(self, 'batch_size', self.batch_size >= 1, 'at least 1')


def require(config, name: str, holds: bool, wanted: str):
    """ValueError that names the option, what came and what was wanted, unless `holds`."""
    if not holds:
        raise ValueError(f'--{name} is {getattr(config, name)}; it has to be {wanted}')


def identity(config) -> dict[str, Any]:
    """The fields that make two runs the same run: all but those of `Run`."""
    carried_out = {field.name for field in dataclasses.fields(Run)}
    return {
        name: value for name, value in dataclasses.asdict(config).items() if name not in carried_out
    }


def replace_traced(config, **values):
    """A copy with fields that may be traced values: `dataclasses.replace` without domain checks."""
    unknown = set(values) - {field.name for field in dataclasses.fields(config)}
    if unknown:
        raise ValueError(f'{type(config).__name__} has no field {", ".join(sorted(unknown))}')
    new = object.__new__(type(config))
    new.__dict__.update(config.__dict__, **values)
    return new
