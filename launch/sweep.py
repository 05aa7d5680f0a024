"""Run a sweep as several processes: a few at a time on this host, or as a Slurm array.

    python -m launch.sweep --jobs 2 -- python -m experiments.sparse_coding.self_taught --sweep atoms
    python -m launch.sweep --jobs 4 -- python -m experiments.autoencoders.deep --grid learning_rate=1e-3,1e-4 seed=0..7
    python -m launch.sweep --slurm '--gpus_per_node 1' -- python -m experiments.autoencoders.deep --seeds 0..7

Your own experiment is launched in the same way from its directory: -- python -m myproject.regress, or
-- python regress.py. The experiment plans the sweep: variants whose fields can be traced share one compiled
program, and each other variant is a job; which, and why, is printed. Finished variants are not repeated and
failed ones are named. At the end the results of all are in sweep.csv, summary.csv and report.html in the
sweep's directory.

On a host with GPUs each job has one of them. A sweep that is a single program needs no launcher: the experiment's
--sweep does the same.

Exit code: 0; 1 if variants have no result; 75 if interrupted (run the same command to resume).
"""

import os
import shlex
import signal
import subprocess
import sys
import time

from launch import command, experiment, local, plan, slurm


def main(argv: list[str]) -> int:
    """Parse the options, plan the sweep, run its jobs and make the table.

    Args:
      argv: The words of the command line.

    Returns:
      The exit code.

    Raises:
      LaunchError: A mistake in the options, or the experiment refuses the sweep.
    """
    launcher_args, words = command.split(argv)
    parser = command.parser('launch.sweep', __doc__ or '')
    add = parser.add_argument
    add('--jobs', type=int, default=1, help='Largest number of jobs at a time. Default: 1.')
    add(
        '--slurm',
        metavar='OPTIONS',
        help='Submit the sweep as a Slurm array, with these options of launch.slurm.',
    )
    options = parser.parse_args(launcher_args)
    if options.jobs < 1:
        raise command.LaunchError(f'--jobs {options.jobs}: expected at least 1')
    line = experiment.command_line(words)
    if not plan.is_sweep(words):
        raise command.LaunchError(
            'the experiment has none of --sweep, --grid and --seeds; add, for example, '
            '--grid learning_rate=1e-3,1e-4 seed=0..7'
        )
    if options.slurm is not None:
        dry = ['--dry_run'] if options.dry_run else []
        array = ['--jobs', str(options.jobs)]
        return slurm.main([*shlex.split(options.slurm), *array, *dry, '--', *words])
    experiment.check_words(line, (*experiment.PROCESS_OPTIONS, 'group'))
    planned = plan.of(line)
    for text in plan.describe(planned):
        print(f'launch.sweep: {text}', file=sys.stderr)
    if options.dry_run:
        for job in planned.jobs:
            print(shlex.join(job.command))
        print(shlex.join(planned.table))
        return 0
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, frame: received.append(n))
    run(planned.jobs, options.jobs, received)
    if received:
        print('launch.sweep: interrupted; run the same command to resume', file=sys.stderr)
        return local.INTERRUPTED
    return subprocess.run(planned.table).returncode


def run(jobs: list[plan.Job], max_concurrent: int, received: list[int]) -> None:
    """Run jobs, at most `max_concurrent` at a time; a failed job does not stop the others.

    Args:
      jobs: The jobs.
      max_concurrent: Largest number of jobs at a time.
      received: List to which signal handlers append; the signals are forwarded, and no more jobs start.

    Raises:
      LaunchError: There are fewer GPUs than concurrent jobs.
    """
    gpus = command.gpus()
    if gpus and max_concurrent > len(gpus):
        raise command.LaunchError(
            f'--jobs {max_concurrent}, but {len(gpus)} GPUs are available and each job takes one; '
            f'use --jobs {len(gpus)}'
        )
    free_gpus = gpus[:max_concurrent] or [''] * max_concurrent
    waiting = list(jobs)
    running: dict[subprocess.Popen, tuple[plan.Job, str]] = {}
    n_forwarded = 0
    while running or (waiting and not received):
        while waiting and free_gpus and not received:
            job, gpu = waiting.pop(0), free_gpus.pop()
            environ = {**os.environ, **({'CUDA_VISIBLE_DEVICES': gpu} if gpu else {})}
            running[command.start(job.command, job.name, environ)] = job, gpu
        if len(received) > n_forwarded:
            n_forwarded = len(received)
            for process in running:
                command.send(process, signal.SIGTERM)
        for process in [process for process in running if process.poll() is not None]:
            job, gpu = running.pop(process)
            free_gpus.append(gpu)
            if process.returncode and not received:
                print(f'launch.sweep: {job.name} exited with {process.returncode}', file=sys.stderr)
        time.sleep(0.05)
    command.drain()


if __name__ == '__main__':
    command.main('launch.sweep', main)
