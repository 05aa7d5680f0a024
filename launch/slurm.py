"""Submits an experiment, or a sweep of one as an array, to Slurm: one task a GPU, all of them one run.

Every task sees all GPUs of its node and takes its own. Slurm sends SIGTERM --notice seconds before
the end: the experiment saves, exits with 75, and the job goes back into the queue to resume. The
working directory, this clone and its Python have to be on a file system that all nodes share.

    python -m launch.slurm --nodes 2 --gpus_per_node 8 --time 12:00:00 -- python -m experiments.autoencoders.deep
    python -m launch.slurm --dry_run --option partition=gpu --option qos=low -- python -m experiments.autoencoders.deep
    python -m launch.slurm --gpus_per_node 1 --jobs 8 -- python -m experiments.autoencoders.deep --grid seed=0..7

A sweep becomes a plain array, a task a job of its plan, and one more job that makes the table when
all have ended. Plain arrays, not submitit: submitit pickles a function where the experiment has a
command line already, and its SIGUSR2 is a signal that JAX's preemption service does not know.
"""

import pathlib
import shlex
import sys

from launch import command, plan


def main(argv: list[str]) -> int:
    """Parse the options, render the script, submit it (or show it)."""
    own, words = command.split(argv)
    parser = command.parser('launch.slurm', __doc__ or '')
    add = parser.add_argument
    add('--nodes', type=int, default=1, help='(default 1)')
    add('--gpus_per_node', type=int, default=0, help='tasks a node too; 0: no GPUs (default)')
    add('--tasks_per_node', type=int, default=0, help='where that differs from the GPUs')
    add('--cpus_per_task', type=int, default=4, help='(default 4)')
    add('--time', default='1:00:00', help="Slurm's time limit of one start (default 1:00:00)")
    add('--notice', type=int, default=120, help='seconds for saving before the end (default 120)')
    add('--restarts', type=int, default=0, help='starts after failures other than 75 (default 0)')
    add('--jobs', type=int, default=0, help='array tasks at a time, of a sweep; 0: all (default)')
    add('--option', action='append', default=[], help='of sbatch, NAME=VALUE; again for more')
    options = parser.parse_args(own)
    for name in ('nodes', 'cpus_per_task', 'notice'):
        if getattr(options, name) < 1:
            raise command.LaunchError(f'--{name} {getattr(options, name)}; at least 1 is wanted')
    line = command.experiment(words)
    if not options.dry_run:
        command.require('sbatch', 'run this on a login node of the cluster')
    directory = pathlib.Path(command.ROOT, command.workdir(words, plan.is_sweep(words))).absolute()
    if not plan.is_sweep(words):
        submit(options, directory, render(options, directory, line))
        return 0
    planned = plan.of(line, accelerator=bool(options.gpus_per_node))
    told = f'{planned.n_finished} of {planned.n_variants} variants are finished'
    print(f'launch.slurm: {told}, {len(planned.jobs)} jobs to run', file=sys.stderr)
    after = []
    if planned.jobs:
        job = submit(options, directory, render_array(options, directory, planned))
        after = [f'--dependency=afterany:{job}']
    submit(options, directory, render_table(options, directory, planned), *after)
    return 0


def submit(options, directory: pathlib.Path, script: str, *more: str) -> str:
    """Hand a script to sbatch, or show it; returns the job's number."""
    if options.dry_run:
        print(shlex.join(['sbatch', *more]) + f' <<END\n{script}END')
        return 'JOB'
    directory.mkdir(parents=True, exist_ok=True)  # Slurm does not make the folder of its logs
    job = command.call(['sbatch', '--parsable', *more], False, script).strip().partition(';')[0]
    output = next(line.partition('=')[2] for line in script.splitlines() if '--output=' in line)
    print(f'job {job}, output in {output.replace("%j", job).replace("%A", job)}')
    return job


def header(options, directory: pathlib.Path, name: str, output: str, **more) -> list[str]:
    """The #SBATCH lines."""
    tasks = options.tasks_per_node or options.gpus_per_node or 1
    settings = {
        'job-name': name,
        'nodes': options.nodes,
        'ntasks-per-node': tasks,
        'cpus-per-task': options.cpus_per_task,
        # of the node, not of the task: each task sees all and takes the one of its local number
        **({'gpus-per-node': options.gpus_per_node} if options.gpus_per_node else {}),
        'time': options.time,
        'signal': f'TERM@{options.notice}',  # to the tasks; B: would tell the shell alone
        'requeue': None,
        'open-mode': 'append',  # a job that starts again goes on with its log
        'output': directory / output,
        'chdir': command.ROOT,
        **more,
    }
    for text in options.option:
        key, _, value = text.lstrip('-').partition('=')
        settings[key] = value or None
    return ['#!/bin/bash'] + [
        f'#SBATCH --{key}' + ('' if value is None else f'={value}')
        for key, value in settings.items()
        if value != ''
    ]


def step(options, line: str) -> list[str]:
    """The command in all tasks, then: back into the queue, or the end."""
    failed = ''
    if options.restarts:
        failed = (
            f' || {{ [ $code -ne 0 ] && [ $code -ne 2 ] && '
            f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {options.restarts} ]; }}'
        )
    return [
        # 0: the tasks save together, so the first that has saved must not end the others
        'srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" --label ' + line,
        'code=$?',
        '# 75: stopped by a signal, and saved',
        f'if [ $code -eq 75 ]{failed}; then scontrol requeue "$SLURM_JOB_ID"; fi',
        'exit $code',
    ]


def render(options, directory: pathlib.Path, line: list[str]) -> str:
    """The batch script of one run."""
    name = line[2].rpartition('.')[2]
    return _text(
        header(options, directory, name, 'slurm-%j.out'),
        step(options, shlex.join(command.placed(line))),
    )


def render_array(options, directory: pathlib.Path, planned: plan.Plan) -> str:
    """The batch script of a sweep's jobs, one an array task."""
    name = planned.table[2].rpartition('.')[2]
    array = f'0-{len(planned.jobs) - 1}' + (f'%{options.jobs}' if options.jobs else '')
    body = ['case $SLURM_ARRAY_TASK_ID in']
    for i, job in enumerate(planned.jobs):
        body.append(f'{i}) job=({shlex.join(job.words)}) ;;')
    body.append('esac')
    lines = header(options, directory, name, 'slurm-%A_%a.out', array=array)
    return _text(lines, [*body, *step(options, '"${job[@]}"')])


def render_table(options, directory: pathlib.Path, planned: plan.Plan) -> str:
    """The batch script that makes the table: one task, no GPU."""
    name = planned.table[2].rpartition('.')[2]
    drop = ('gpus-per-node', 'signal', 'requeue', 'open-mode')
    one = {'nodes': 1, 'ntasks-per-node': 1}
    lines = [
        text
        for text in header(options, directory, f'{name}-table', 'slurm-table-%j.out', **one)
        if not text.startswith(tuple(f'#SBATCH --{key}' for key in drop))
    ]
    return _text(lines, [f'JAX_PLATFORMS=cpu exec {shlex.join(planned.table)}'])


def _text(lines: list[str], body: list[str]) -> str:
    return '\n'.join([*lines, '', *body]) + '\n'


if __name__ == '__main__':
    command.main('launch.slurm', main)
