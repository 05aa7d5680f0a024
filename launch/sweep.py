"""A sweep as several processes: on this host, a few at a time, or as a Slurm array.

The experiment plans it: variants whose fields can be traced share one compiled program, all others
are a job each. Finished variants are not run again, broken ones are named, and the end is a table:
sweep.csv, summary.csv and report.html in the sweep's directory.

    python -m launch.sweep --jobs 2 -- python -m experiments.sparse_coding.self_taught --sweep atoms
    python -m launch.sweep --jobs 4 -- python -m experiments.autoencoders.deep --grid learning_rate=1e-3,1e-4 seed=0..7
    python -m launch.sweep --slurm '--gpus_per_node 1' -- python -m experiments.autoencoders.deep --grid seed=0..7

With GPUs each local job has one to itself. A sweep that is one program needs no launcher: the
experiment's own --sweep does the same. Exit code: 0; 1 where variants have no result; 75 when
interrupted (run the same command to go on).
"""

import os
import shlex
import signal
import subprocess
import sys
import time

from launch import command, local, plan, slurm


def main(argv: list[str]) -> int:
    """Parse the options, plan, run the jobs, make the table."""
    own, words = command.split(argv)
    parser = command.parser('launch.sweep', __doc__ or '')
    parser.add_argument('--jobs', type=int, default=1, help='at most so many at a time (default 1)')
    parser.add_argument(
        '--slurm', metavar='OPTIONS', help='as a Slurm array, with these options of launch.slurm'
    )
    options = parser.parse_args(own)
    if options.jobs < 1:
        raise command.LaunchError(f'--jobs {options.jobs}; at least 1 is wanted')
    line = command.experiment(words)
    if not plan.is_sweep(words):
        raise command.LaunchError(
            'the experiment has neither --sweep nor --grid; add, for instance, '
            '--grid learning_rate=1e-3,1e-4 seed=0..7'
        )
    if options.slurm is not None:
        dry = ['--dry_run'] if options.dry_run else []
        array = ['--jobs', str(options.jobs)]
        return slurm.main([*shlex.split(options.slurm), *array, *dry, '--', *words])
    planned = plan.of(line)
    if options.dry_run:
        for job in planned.jobs:
            print(shlex.join(job.words))
        print(shlex.join(planned.table))
        return 0
    told = f'{planned.n_finished} of {planned.n_variants} variants are finished'
    print(f'launch.sweep: {told}, {len(planned.jobs)} jobs to run', file=sys.stderr)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, frame: asked.append(n))
    run(planned.jobs, options.jobs, asked)
    if asked:
        print('launch.sweep: interrupted; run the same command to go on', file=sys.stderr)
        return local.INTERRUPTED
    return subprocess.run(planned.table, cwd=command.ROOT).returncode


def run(jobs: list[plan.Job], at_once: int, asked: list[int]):
    """All jobs, `at_once` at a time; one that fails does not stop the others."""
    gpus = command.gpus()
    if gpus and at_once > len(gpus):
        raise command.LaunchError(
            f'--jobs {at_once}, but there are {len(gpus)} GPUs and each job takes one; use '
            f'--jobs {len(gpus)}'
        )
    free = gpus[:at_once] or [''] * at_once
    waiting = list(jobs)
    running: dict[subprocess.Popen, tuple[plan.Job, str]] = {}
    passed = 0
    while running or (waiting and not asked):
        while waiting and free and not asked:
            job, gpu = waiting.pop(0), free.pop()
            environ = {**os.environ, **({'CUDA_VISIBLE_DEVICES': gpu} if gpu else {})}
            running[command.start(job.words, job.name, environ)] = job, gpu
        if len(asked) > passed:
            passed = len(asked)
            for process in running:
                command.send(process, signal.SIGTERM)
        for process in [one for one in running if one.poll() is not None]:
            job, gpu = running.pop(process)
            free.append(gpu)
            if process.returncode and not asked:
                print(f'launch.sweep: {job.name} ended with {process.returncode}', file=sys.stderr)
        time.sleep(0.05)
    command.drain()


if __name__ == '__main__':
    command.main('launch.sweep', main)
