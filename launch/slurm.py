"""Submits an experiment to Slurm, or a sweep of it as an array: one task per GPU, all tasks one run.

    python -m launch.slurm --nodes 2 --gpus_per_node 8 --time 12:00:00 -- python -m experiments.autoencoders.deep
    python -m launch.slurm --dry_run --option partition=gpu --option qos=low -- python -m experiments.autoencoders.deep
    python -m launch.slurm --gpus_per_node 1 --jobs 8 -- python -m experiments.autoencoders.deep --grid seed=0..7

Every task sees all GPUs of its node and takes its own. Slurm sends SIGTERM --notice seconds before the time
limit: the experiment saves and exits with 75, and the job is requeued to resume. The run directory, this
clone and its Python have to be on a file system shared by all nodes.

A sweep becomes a job array with a task for each job of its plan, and one more job that makes the table when
all have ended. Plain arrays are used instead of submitit, which pickles a function where the experiment
already has a command line, and whose SIGUSR2 is unknown to JAX's preemption service.
"""

import argparse
import pathlib
import shlex
import sys

from launch import command, plan


def main(argv: list[str]) -> int:
    """Parse the options and submit the batch script, or print it.

    Args:
      argv: The words of the command line.

    Returns:
      Exit code 0.

    Raises:
      LaunchError: A mistake in the options, the experiment refuses the sweep, or sbatch fails.
    """
    own, words = command.split(argv)
    parser = command.parser('launch.slurm', __doc__ or '')
    add = parser.add_argument
    add('--nodes', type=int, default=1, help='Number of nodes. Default: 1.')
    add(
        '--gpus_per_node',
        type=int,
        default=0,
        help='GPUs per node, each with a task of its own. Default: 0, none.',
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
        help='Restarts after failures; interruptions that saved (exit code 75) always restart. '
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
    options = parser.parse_args(own)
    for name in ('nodes', 'cpus_per_task', 'notice'):
        if getattr(options, name) < 1:
            raise command.LaunchError(f'--{name} {getattr(options, name)}: expected at least 1')
    line = command.experiment(words)
    if not options.dry_run:
        command.require('sbatch', 'run this on a login node of the cluster')
    directory = pathlib.Path(command.ROOT, command.workdir(words)).absolute()
    if not plan.is_sweep(words):
        submit(options, directory, render(options, directory, line))
        return 0
    planned = plan.of(line, accelerator=bool(options.gpus_per_node))
    print(f'launch.slurm: {plan.progress(planned)}', file=sys.stderr)
    dependency = []
    if planned.jobs:
        job = submit(options, directory, render_array(options, directory, planned))
        dependency = [f'--dependency=afterany:{job}']
    submit(options, directory, render_table(options, directory, planned), *dependency)
    return 0


def submit(
    options: argparse.Namespace, directory: pathlib.Path, script: str, *sbatch_options: str
) -> str:
    """Submit a batch script, or print it with --dry_run.

    Args:
      options: The launcher's options.
      directory: Directory of the log, created because Slurm does not.
      script: The batch script.
      *sbatch_options: Further options of sbatch.

    Returns:
      The job id.

    Raises:
      LaunchError: sbatch fails.
    """
    if options.dry_run:
        print(shlex.join(['sbatch', *sbatch_options]) + f' <<END\n{script}END')
        return 'JOB'
    directory.mkdir(parents=True, exist_ok=True)
    submitted = command.call(['sbatch', '--parsable', *sbatch_options], False, script)
    job = submitted.strip().partition(';')[0]
    output = next(line.partition('=')[2] for line in script.splitlines() if '--output=' in line)
    print(f'job {job}, output in {output.replace("%j", job).replace("%A", job)}')
    return job


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
        'output': directory / output,
        'chdir': command.ROOT,
        **overrides,
    }
    for text in options.option:
        key, _, value = text.lstrip('-').partition('=')
        settings[key] = value or None
    return ['#!/bin/bash'] + [
        f'#SBATCH --{key}' + ('' if value is None else f'={value}')
        for key, value in settings.items()
        if value != ''
    ]


def step(options: argparse.Namespace, command_text: str) -> list[str]:
    """The lines that run a command in all tasks and then requeue the job or end it.

    Args:
      options: The launcher's options; `restarts` is used.
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
    return [
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
    name = line[2].rpartition('.')[2]
    return _text(
        header(options, directory, name, 'slurm-%j.out'),
        step(options, shlex.join(command.with_workdir(line))),
    )


def render_array(options: argparse.Namespace, directory: pathlib.Path, planned: plan.Plan) -> str:
    """The batch script of a sweep, with an array task for each job.

    Args:
      options: The launcher's options.
      directory: The sweep's directory.
      planned: The sweep's plan.

    Returns:
      The script.
    """
    name = planned.table[2].rpartition('.')[2]
    array = f'0-{len(planned.jobs) - 1}' + (f'%{options.jobs}' if options.jobs else '')
    body = ['case $SLURM_ARRAY_TASK_ID in']
    for i, job in enumerate(planned.jobs):
        body.append(f'{i}) job=({shlex.join(job.command)}) ;;')
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
    name = planned.table[2].rpartition('.')[2]
    omitted = ('gpus-per-node', 'signal', 'requeue', 'open-mode')
    one_task = {'nodes': 1, 'ntasks-per-node': 1}
    lines = [
        text
        for text in header(options, directory, f'{name}-table', 'slurm-table-%j.out', **one_task)
        if not text.startswith(tuple(f'#SBATCH --{key}' for key in omitted))
    ]
    return _text(lines, [f'JAX_PLATFORMS=cpu exec {shlex.join(planned.table)}'])


def _text(lines: list[str], body: list[str]) -> str:
    return '\n'.join([*lines, '', *body]) + '\n'


if __name__ == '__main__':
    command.main('launch.slurm', main)
