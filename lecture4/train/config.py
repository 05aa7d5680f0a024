"""What every experiment's command line shares: how a run is carried out, and what it computes."""

import dataclasses
from typing import Any, Literal


class UsageError(Exception):
    """A mistake of the user's: shown as one line with the mend, exit code 2, no traceback."""


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run is carried out. These fields may change when a run is resumed."""

    # Named settings of this experiment, listed above; options given beside it override them.
    preset: str = ''
    # Run a named sweep of this experiment, listed above, instead of one run.
    sweep: str = ''
    # Sweep over every combination of these instead: learning_rate=1e-3,1e-4 seed=0..7
    grid: tuple[str, ...] = ()
    # What to do: all; data alone, prepared and read; encode the set by the run that workdir holds; of
    # a sweep also print the plan as JSON, or make the table of what is there.
    stage: Literal['all', 'data', 'encode', 'plan', 'table'] = 'all'
    # Run this group or variant of a sweep alone, as the plan names it, and make no table.
    group: str = ''
    # Metric that decides which variant of a sweep is best. Default: the first that is reported.
    best: str = ''
    # Run a sweep as one compiled program (vmap) or one variant after another (loop).
    vectorize: Literal['auto', 'vmap', 'loop'] = 'auto'
    # Where results go. Default: runs/EXPERIMENT[-PRESET][-SWEEP].
    workdir: str = ''
    # Throw away the run that workdir holds.
    overwrite: bool = False
    # Folder of data sets already fetched. Default: $LECTURE4_MANUAL_DIR.
    manual_dir: str = ''
    # Where prepared data sets lie. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    data_dir: str = ''
    # Allow fetching missing data sets over the network.
    download: bool = False
    # Devices to use, over all processes; 0 takes all. CPUs are divided into as many as asked for.
    devices: int = 0
    # How a step is spread over devices; the numbers are the same.
    parallel: Literal['jit', 'pmap'] = 'jit'
    # HOST:PORT of process 0, where a run has several processes. Slurm steps and TPU pods need none.
    coordinator: str = ''
    # How many processes there are, with --coordinator.
    processes: int = 0
    # Which of them this is, from 0.
    process_id: int = -1
    # Seconds that processes wait for one another at the start.
    init_timeout: float = 300.0
    # Steps compiled into one call (a scan).
    steps_per_call: int = 1
    # Steps between rows of metrics.jsonl.
    log_every: int = 10
    # Steps between evaluations.
    evaluate_every: int = 100
    # Steps between checkpoints.
    save_every: int = 100
    # How many checkpoints are kept.
    keep: int = 2
    # How progress is shown; auto is a bar on a terminal and plain lines elsewhere.
    progress: Literal['auto', 'bar', 'plain', 'none'] = 'auto'
    # Where compiled programs are kept between runs; 'none' turns that off.
    cache_dir: str = 'auto'

    def __post_init__(self):
        for name in ('steps_per_call', 'log_every', 'evaluate_every', 'save_every', 'keep'):
            require(self, name, getattr(self, name) >= 1, 'at least 1')
        require(self, 'devices', self.devices >= 0, 'the number of devices, or 0 for all')
        require(self, 'init_timeout', self.init_timeout > 0, 'above 0')
        for name in ('log_every', 'evaluate_every', 'save_every'):
            value = getattr(self, name)
            lower = max(value // self.steps_per_call, 1) * self.steps_per_call
            require(
                self,
                name,
                value % self.steps_per_call == 0,
                f'a multiple of steps_per_call ({self.steps_per_call}), for instance {lower}',
            )

    def places(self) -> dict[str, Any]:
        """Where data sets are, as `sources.load` takes them."""
        return {
            'data_dir': self.data_dir or None,
            'manual_dir': self.manual_dir or None,
            'download': self.download,
        }


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
