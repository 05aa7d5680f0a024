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

from launch import command, experiment, plan

# minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on: of sbatch's --time.
TIME = re.compile(
    r'(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?'
    r'|(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)|(?P<only_minutes>\d+))'
)
UNLIMITED = ('unlimited', 'infinite')
PLAIN = re.compile(r'[\w@%+=:,./-]*')  # values of #SBATCH lines that need no quotes


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
    if options.check and plan.is_sweep(words):
        raise command.LaunchError(
            '--check compiles one run, not a sweep: check a variant of it first'
        )
    if options.check:
        n_gpus = options.nodes * options.gpus_per_node
        if not n_gpus:
            raise command.LaunchError('--check needs --gpus_per_node')
        experiment.check_compiled(line, f'h200:{n_gpus}')
    if not plan.is_sweep(words):
        experiment.check(line)
        submit(options, directory, render(options, directory, line))
        return 0
    planned = plan.of(line, accelerator=bool(options.gpus_per_node))
    for text in plan.describe(planned):
        print(f'launch.slurm: {text}', file=sys.stderr)
    dependency = []
    if planned.jobs:
        job = submit(options, directory, render_array(options, directory, planned), 'ARRAY')
        dependency = [f'--dependency=afterany:{job}']
    submit(options, directory, render_table(options, directory, planned), 'TABLE', dependency)
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
    output = next(line.partition('=')[2] for line in directives(script) if '--output=' in line)
    output = output.replace('%j', job).replace('%A', job).replace('%%', '%')
    print(f'job {job}, output in {output}')
    return job


def directives(script: str) -> list[str]:
    """The options of a batch script's #SBATCH lines, as sbatch reads them."""
    lines = [line for line in script.splitlines() if line.startswith('#SBATCH ')]
    return [word for line in lines for word in shlex.split(line)[1:]]


def quoted(value: object) -> str:
    """A value for an #SBATCH line: in double quotes where sbatch would split or unescape it."""
    text = str(value)
    if PLAIN.fullmatch(text):
        return text
    return '"' + text.replace('\\', r'\\').replace('"', r'\"') + '"'


def header(
    options: argparse.Namespace,
    directory: pathlib.Path,
    name: str,
    output: str,
    **overrides: int | str,
) -> list[str]:
    """The #SBATCH lines of a batch script.

    Args:
      options: The launcher's options; those of --option come last.
      directory: Directory of the log.
      name: Name of the job.
      output: Name of the log.
      **overrides: Options of sbatch that replace or add to the usual ones.

    Returns:
      The lines, with the interpreter's line first.
    """
    tasks = options.tasks_per_node or options.gpus_per_node or 1
    settings = {
        'job-name': name,
        'nodes': options.nodes,
        'ntasks-per-node': tasks,
        'cpus-per-task': options.cpus_per_task,
        # Per node, not per task: each task sees all GPUs and takes the one of its local index.
        **({'gpus-per-node': options.gpus_per_node} if options.gpus_per_node else {}),
        'time': options.time,
        'signal': f'TERM@{options.notice}',  # to the tasks; B: would signal only the shell
        'requeue': None,
        'open-mode': 'append',  # a requeued job continues its log
        # A percent sign begins a replacement symbol of sbatch.
        'output': str(directory).replace('%', '%%') + f'/{output}',
        'chdir': pathlib.Path.cwd(),
        **overrides,
    }
    for text in options.option:
        key, _, value = text.lstrip('-').partition('=')
        settings[key] = value or None
    return ['#!/bin/bash'] + [
        f'#SBATCH --{key}' + ('' if value is None else f'={quoted(value)}')
        for key, value in settings.items()
        if value != ''
    ]


def step(options: argparse.Namespace, command_text: str) -> list[str]:
    """The lines that run a command in all tasks and then requeue the job or end it.

    Args:
      options: The launcher's options; `restarts` and `prologue` are used.
      command_text: The command, as shell text.

    Returns:
      Lines of shell.
    """
    or_failed = ''
    if options.restarts:
        or_failed = (
            f' || {{ [ $code -ne 0 ] && [ $code -ne 2 ] && '
            f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {options.restarts} ]; }}'
        )
    prologue = ['set -e', *options.prologue, 'set +e'] if options.prologue else []
    return [
        *prologue,
        # 0: the tasks save in a collective, so the first to exit must not end the others.
        'srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" --label ' + command_text,
        'code=$?',
        '# 75: stopped by a signal, and saved',
        f'if [ $code -eq 75 ]{or_failed}; then scontrol requeue "$SLURM_JOB_ID"; fi',
        'exit $code',
    ]


def render(options: argparse.Namespace, directory: pathlib.Path, line: list[str]) -> str:
    """The batch script of one run.

    Args:
      options: The launcher's options.
      directory: The run directory.
      line: The experiment's command line.

    Returns:
      The script.
    """
    line = on_gpus(options, experiment.with_workdir(line))
    return _text(
        header(options, directory, experiment.name(line), 'slurm-%j.out'),
        step(options, shlex.join(line)),
    )


def on_gpus(options: argparse.Namespace, line: list[str]) -> list[str]:
    """A command line that fails at once if JAX sees no GPU, instead of training on the CPU."""
    return experiment.with_option(line, 'platform', 'gpu') if options.gpus_per_node else line


def render_array(options: argparse.Namespace, directory: pathlib.Path, planned: plan.Plan) -> str:
    """The batch script of a sweep, with an array task for each job.

    Args:
      options: The launcher's options.
      directory: The sweep's directory.
      planned: The sweep's plan.

    Returns:
      The script.
    """
    name = experiment.name(planned.table)
    array = f'0-{len(planned.jobs) - 1}' + (f'%{options.jobs}' if options.jobs else '')
    body = ['case $SLURM_ARRAY_TASK_ID in']
    for i, job in enumerate(planned.jobs):
        body.append(f'{i}) job=({shlex.join(on_gpus(options, job.command))}) ;;')
    body.append('esac')
    lines = header(options, directory, name, 'slurm-%A_%a.out', array=array)
    return _text(lines, [*body, *step(options, '"${job[@]}"')])


def render_table(options: argparse.Namespace, directory: pathlib.Path, planned: plan.Plan) -> str:
    """The batch script that makes a sweep's table, with one task and no GPU.

    Args:
      options: The launcher's options.
      directory: The sweep's directory.
      planned: The sweep's plan.

    Returns:
      The script.
    """
    name = experiment.name(planned.table)
    omitted = ('gpus-per-node', 'signal', 'requeue', 'open-mode')
    one_task = {'nodes': 1, 'ntasks-per-node': 1}
    lines = [
        text
        for text in header(options, directory, f'{name}-table', 'slurm-table-%j.out', **one_task)
        if not text.startswith(tuple(f'#SBATCH --{key}' for key in omitted))
    ]
    prologue = ['set -e', *options.prologue] if options.prologue else []
    return _text(lines, [*prologue, f'JAX_PLATFORMS=cpu exec {shlex.join(planned.table)}'])


def _text(lines: list[str], body: list[str]) -> str:
    return '\n'.join([*lines, '', *body]) + '\n'


if __name__ == '__main__':
    command.main('launch.slurm', main)
