r"""Submit an experiment to Slurm, or a sweep of it as an array: one task per GPU, all tasks one run.

    python -m launch.slurm --nodes 2 --gpus_per_node 8 --time 12:00:00 -- python -m experiments.autoencoders.deep
    python -m launch.slurm --dry_run --option partition=gpu --prologue 'module load cuda' \
        --prologue 'export NCCL_SOCKET_IFNAME=ib0' -- python -m experiments.autoencoders.deep
    python -m launch.slurm --gpus_per_node 1 --jobs 8 -- python -m experiments.autoencoders.deep --grid seed=0..7

Every task sees all GPUs of its node and uses one of them. Slurm sends SIGTERM --notice seconds before the time
limit: the experiment saves and exits with 75, and the job is requeued to resume. The job runs in the current
directory, which, like the run directory and Python, has to be on a file system shared by all nodes. What
--dry_run prints can be pasted into a shell.

A sweep becomes a job array with a task for each job of its plan, and one more job that makes the table when
all have ended. Plain arrays are used instead of submitit, which pickles a function where the experiment
already has a command line, and whose SIGUSR2 is unknown to JAX's preemption service.
"""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from launch import batch_script, command, experiment, plan

# minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on: of sbatch's --time.
TIME = re.compile(
    r'(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?'
    r'|(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)|(?P<only_minutes>\d+))'
)
UNLIMITED = ('unlimited', 'infinite')


def main(argv: list[str]) -> int:
    """Parse the options and submit the batch script, or print it.

    Args:
      argv: The words of the command line.

    Returns:
      Exit code 0.

    Raises:
      LaunchError: A mistake in the options, the experiment refuses the sweep, or sbatch fails.
    """
    launcher_args, words = command.split(argv)
    parser = command.parser('launch.slurm', __doc__ or '')
    add = parser.add_argument
    add('--nodes', type=int, default=1, help='Number of nodes. Default: 1.')
    add(
        '--gpus_per_node',
        type=int,
        default=0,
        help='GPUs per node, with one task each. Default: 0, none.',
    )
    add(
        '--tasks_per_node',
        type=int,
        default=0,
        help='Tasks per node. Default: the number of GPUs, at least 1.',
    )
    add('--cpus_per_task', type=int, default=4, help='CPU cores per task. Default: 4.')
    add('--time', default='1:00:00', help='Time limit of each start of the job. Default: 1:00:00.')
    add(
        '--notice',
        type=int,
        default=120,
        help='Seconds between the signal to save and the time limit. Default: 120.',
    )
    add(
        '--restarts',
        type=int,
        default=0,
        help='Number of restarts after failures; interruptions that saved (exit code 75) always restart. '
        'Default: 0.',
    )
    add(
        '--jobs',
        type=int,
        default=0,
        help='Largest number of array tasks of a sweep at a time. Default: 0, all.',
    )
    add(
        '--option',
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help='Option of sbatch; may be given several times.',
    )
    add(
        '--prologue',
        action='append',
        default=[],
        metavar='SHELL',
        help='Shell command before the run, on the first node: modules, NCCL variables; may be given '
        'several times. The job ends if one fails.',
    )
    add(
        '--shared',
        default='',
        help='Directory shared by all nodes in which --workdir may be although it looks temporary.',
    )
    add(
        '--check',
        action='store_true',
        help='Compile the training step first, on this machine with jax[cuda12], and submit nothing if it does not '
        'fit. The GPUs are taken to be H200s.',
    )
    options = parser.parse_args(launcher_args)
    for name in ('nodes', 'cpus_per_task', 'notice'):
        if getattr(options, name) < 1:
            raise command.LaunchError(f'--{name} {getattr(options, name)}: expected at least 1')
    check_options(options)
    line = experiment.command_line(words)
    experiment.check_words(line, (*experiment.PROCESS_OPTIONS, 'group'))
    directory = pathlib.Path(experiment.workdir(words)).absolute()
    check_directory(directory, options.shared)
    if not options.dry_run:
        command.require('sbatch', 'run this on a login node of the cluster')
    if options.check:
        n_gpus = options.nodes * options.gpus_per_node
        if plan.is_sweep(words):
            raise command.LaunchError(
                '--check compiles one run, not a sweep: check a variant first'
            )
        if not n_gpus:
            raise command.LaunchError('--check needs --gpus_per_node')
        experiment.check_compiled(line, f'h200:{n_gpus}')
    if not plan.is_sweep(words):
        experiment.check(line)
        submit(options, directory, batch_script.render(options, directory, line))
        return 0
    planned = plan.of(line, accelerator=bool(options.gpus_per_node))
    for text in plan.describe(planned):
        print(f'launch.slurm: {text}', file=sys.stderr)
    dependency = []
    if planned.jobs:
        job = submit(
            options, directory, batch_script.render_array(options, directory, planned), 'ARRAY'
        )
        dependency = [f'--dependency=afterany:{job}']
    submit(
        options,
        directory,
        batch_script.render_table(options, directory, planned),
        'TABLE',
        dependency,
    )
    return 0


def check_options(options: argparse.Namespace) -> None:
    """Refuse an invalid time limit, option of sbatch or prologue.

    Args:
      options: The launcher's options.

    Raises:
      LaunchError: One of them is malformed, or the notice is not shorter than the time limit.
    """
    for text in options.option:
        if not re.fullmatch(r'(--)?[a-z][a-z-]*(=.*)?', text, re.DOTALL) or not text.isprintable():
            raise command.LaunchError(
                f'--option {text!r}: expected NAME=VALUE with the name of an option of sbatch, '
                'for example partition=gpu'
            )
    limits = [text.partition('=')[2] for text in options.option if text.startswith('time=')]
    for text in [options.time, *limits]:
        seconds = time_limit(text)
        if seconds is not None and seconds <= options.notice:
            raise command.LaunchError(
                f'--time {text} is {seconds} seconds, no longer than --notice {options.notice}; '
                'expected hours:minutes:seconds that leave time to train'
            )
    for text in options.prologue:
        checked = subprocess.run(['bash', '-n'], input=text, capture_output=True, text=True)
        if checked.returncode:
            reason = checked.stderr.strip().splitlines()[0].removeprefix('bash: ')
            raise command.LaunchError(f'--prologue {text!r} is not a shell command: {reason}')


def time_limit(text: str) -> int | None:
    """A time limit in seconds, in the forms that sbatch takes; None for no limit.

    Raises:
      LaunchError: The text has none of these forms.
    """
    if text.lower() in UNLIMITED or text == '0':
        return None
    match = TIME.fullmatch(text)
    if not match:
        raise command.LaunchError(
            f'--time {text}: expected hours:minutes:seconds, days-hours:minutes:seconds, or minutes'
        )
    part = {key: int(value or 0) for key, value in match.groupdict().items()}
    hours = 24 * part['days'] + part['hours'] + part['h']
    minutes = part['minutes'] + part['m'] + part['only_minutes']
    return 60 * (60 * hours + minutes) + part['seconds'] + part['s']


def check_directory(directory: pathlib.Path, shared: str) -> None:
    """Refuse a run directory that is local to this host.

    Args:
      directory: The run directory, absolute.
      shared: A directory that is shared by all nodes.

    Raises:
      LaunchError: It is a temporary directory, or its name cannot be written in a batch script.
    """
    if not str(directory).isprintable():
        raise command.LaunchError(f'--workdir {str(directory)!r}: expected printable characters')
    local_roots = {'/tmp', '/var/tmp', '/dev/shm', '/run', tempfile.gettempdir()}
    local = next((root for root in sorted(local_roots) if directory.is_relative_to(root)), None)
    if local and not (shared and directory.is_relative_to(pathlib.Path(shared).absolute())):
        raise command.LaunchError(
            f'--workdir {directory}: each node has its own {local}, so the results would be lost; '
            'choose a directory on a shared file system, or name this one with --shared'
        )


def submit(
    options: argparse.Namespace,
    directory: pathlib.Path,
    script: str,
    variable: str = 'RUN',
    sbatch_options: list[str] | None = None,
) -> str:
    """Submit a batch script; with --dry_run, print the shell commands that would.

    Args:
      options: The launcher's options.
      directory: Directory of the log, created because Slurm does not.
      script: The batch script.
      variable: Shell variable of the job id in the printed commands.
      sbatch_options: Further options of sbatch.

    Returns:
      The job id, or the shell variable that will hold it.

    Raises:
      LaunchError: sbatch fails.
    """
    words = ['sbatch', '--parsable', *(sbatch_options or [])]
    if options.dry_run:
        print(shlex.join(['mkdir', '-p', str(directory)]))
        text = ' '.join(word if '${' in word else shlex.quote(word) for word in words)
        print(f'{variable}=$({command.with_input(text, script)}\n)')
        job = f'${{{variable}%%;*}}'  # --parsable prints JOB, or JOB;CLUSTER
        print(f'echo "job {job}"')
        return job
    directory.mkdir(parents=True, exist_ok=True)
    job = command.call(words, False, script).strip().partition(';')[0]
    output = next(
        line.partition('=')[2] for line in batch_script.directives(script) if '--output=' in line
    )
    output = output.replace('%j', job).replace('%A', job).replace('%%', '%')
    print(f'job {job}, output in {output}')
    return job


if __name__ == '__main__':
    command.main('launch.slurm', main)
