"""Options shared by all experiments: how a run is carried out, and what it computes."""

import dataclasses
from typing import Any, Literal

from lecture4.train import fields
from lecture4.train.fields import AtLeast0, AtLeast1, Positive, Seed


class UsageError(Exception):
    """A mistake of the user: shown as one line with the fix, exit code 2, no traceback."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is carried out. These fields may change when a run is resumed."""

    # Named settings of this experiment, listed above; options on the command line override them.
    preset: str = ''
    # Run a named sweep of this experiment, listed above, instead of one run.
    sweep: str = ''
    # Sweep over every combination of these values instead: learning_rate=1e-3,1e-4 seed=0..7
    grid: tuple[str, ...] = ()
    # Repeat the run (or every variant of the sweep) with these seeds, for means and standard errors: 0..4
    seeds: str = ''
    # Stage to run: all; data (prepare and read the data only); encode (encode the data set with the
    # finished run in --workdir); predict (apply that run's model to the images of --input); export (write
    # its network under torchvision's names); plan (print the plan of a sweep as JSON); table (rebuild its
    # tables).
    stage: Literal['all', 'data', 'encode', 'predict', 'export', 'plan', 'table'] = 'all'
    # Images for --stage predict: image files, dir:PATH for all images under a directory, npz:PATH for an array.
    input: tuple[str, ...] = ()
    # Run only this group or variant of a sweep, as the plan names it, and write no table.
    group: str = ''
    # Metric that ranks the variants of a sweep. Default: the primary metric of the experiment.
    best: str = ''
    # Run a sweep as one compiled program (vmap) or one variant after another (loop).
    vectorize: Literal['auto', 'vmap', 'loop'] = 'auto'
    # Check the options, print them as JSON, and exit; nothing is read or trained.
    dry_run: bool = False
    # Directory for results. Default: runs/EXPERIMENT[-PRESET][-SWEEP].
    workdir: str = ''
    # Delete the run that --workdir holds and start again.
    overwrite: bool = False
    # Directory of data sets that are already downloaded. Default: $LECTURE4_MANUAL_DIR.
    manual_dir: str = ''
    # Directory of prepared data sets. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    data_dir: str = ''
    # Allow missing data sets to be downloaded.
    download: bool = False
    # Number of devices over all processes; 0 takes all. A CPU is divided into as many as requested.
    devices: AtLeast0 = 0
    # Kind of devices that the run needs; it does not start on others.
    platform: Literal['any', 'cpu', 'gpu', 'tpu'] = 'any'
    # How a step is distributed over devices; the results are the same.
    parallel: Literal['jit', 'pmap'] = 'jit'
    # Number of devices that divide large parameter arrays and their optimizer state among them, in experiments
    # whose model says how; the batch is divided over the other factor of the devices.
    model_parallel: AtLeast1 = 1
    # File of launch.compile --save with the compiled training step, loaded in place of compiling. It is a pickle:
    # load only files that you wrote.
    load_compiled: str = ''
    # HOST:PORT of process 0 of a run with several processes. Not needed in Slurm steps and on TPU pods.
    coordinator: str = ''
    # Number of processes, with --coordinator.
    processes: AtLeast0 = 0
    # Index of this process, from 0, with --coordinator.
    process_id: int = -1
    # Time in seconds that processes wait for one another at the start.
    init_timeout: Positive = 300.0
    # Compute the layers of each block of a ResNet, VGG or GoogLeNet again in the backward pass, in place of storing
    # their activations: larger batches fit into memory, and a step takes longer.
    remat: bool = False
    # Steps compiled into one call (a scan over batches).
    steps_per_call: AtLeast1 = 1
    # Steps between rows of metrics.jsonl; 0 writes about 100 rows a run.
    log_every: AtLeast0 = 0
    # Steps between evaluations; 0 evaluates 20 times a run.
    evaluate_every: AtLeast0 = 0
    # Steps between checkpoints; 0 saves 4 times a run.
    save_every: AtLeast0 = 0
    # Service that metrics are also sent to; wandb needs the extra of that name, and a login or WANDB_MODE=offline.
    log: Literal['none', 'wandb'] = 'none'
    # Number of newest checkpoints to keep, besides the best one.
    keep: AtLeast1 = 2
    # Write a JAX trace of steps 10 to 20 to WORKDIR/profile, for TensorBoard or Perfetto.
    profile: bool = False
    # How progress is shown; auto is a bar on a terminal and plain lines elsewhere.
    progress: Literal['auto', 'bar', 'plain', 'none'] = 'auto'
    # Directory of the compilation cache; 'none' turns the cache off.
    cache_dir: str = 'auto'

    def __post_init__(self):
        fields.check(self)

    def data_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `sources.load` that say where data sets are."""
        return {
            'data_dir': self.data_dir or None,
            'manual_dir': self.manual_dir or None,
            'download': self.download,
        }


@dataclasses.dataclass(frozen=True)
class Config(RunOptions):
    """Options of the computation that all experiments share; each experiment adds its own fields."""

    # Seed of all randomness: data order, initialization, noise, sampling.
    seed: Seed = 0
    # Number of training steps.
    steps: AtLeast1 = 1000
    # Number of examples per step, over all devices.
    batch_size: AtLeast1 = 128
    # Number of parts of a batch whose gradients are averaged, one part in memory at a time. The loss is to be a mean
    # over examples. Each part has its own noise and batch statistics, and updates batch norm's running averages.
    accumulate: AtLeast1 = 1

    def __post_init__(self):
        super().__post_init__()
        divides = self.batch_size % self.accumulate == 0
        require(self, 'accumulate', divides, f'a divisor of --batch_size {self.batch_size}')


# {cadence: default number of times per run}
TIMES_A_RUN = {'log_every': 100, 'evaluate_every': 20, 'save_every': 4}


def cadence(config: Config, name: str) -> int:
    """Number of steps between two logs, evaluations or checkpoints: a multiple of `steps_per_call`.

    Args:
      config: The config of a run.
      name: 'log_every', 'evaluate_every' or 'save_every'.
    """
    steps = getattr(config, name) or -(-config.steps // TIMES_A_RUN[name])
    return -(-steps // config.steps_per_call) * config.steps_per_call


def config_fingerprint(config: Config) -> dict[str, Any]:
    """The fields that identify a run: all except those of `RunOptions`."""
    options = {field.name for field in dataclasses.fields(RunOptions)}
    return {
        name: value for name, value in dataclasses.asdict(config).items() if name not in options
    }


def replace_traced(config: Config, **values: Any) -> Any:
    """A copy with fields that may be traced values: `dataclasses.replace` without domain checks."""
    unknown = set(values) - {field.name for field in dataclasses.fields(config)}
    if unknown:
        raise ValueError(f'{type(config).__name__} has no field {", ".join(sorted(unknown))}')
    new = object.__new__(type(config))
    new.__dict__.update(config.__dict__, **values)
    return new


def require(config: RunOptions, name: str, holds: bool, expected: str):
    """Raise a ValueError with the option, its value and what was expected, unless `holds`.

    For rules between fields, in `__post_init__`; domains of single fields stand in their types.
    """
    if not holds:
        raise ValueError(f'--{name} is {getattr(config, name)}; expected {expected}')
