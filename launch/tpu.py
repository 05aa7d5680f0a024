r"""Run an experiment on all hosts of a Cloud TPU slice of VMs: create, copy, setup, run, logs, delete.

    python -m launch.tpu --name a --zone us-east5-b --type v5litepod-16 --share 10.0.0.2:/vol -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a
    python -m launch.tpu --name a --zone us-east5-b --do logs
    python -m launch.tpu --name a --zone us-east5-b --type v6e-16 --spot --share 10.0.0.2:/vol --dry_run -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a

It uses Google's queued resources and TPU VMs, a legacy interface: for generations up to v6e, and not
supported on TPU7x and later, for which there is launch.gke. It was tested with a stand-in for gcloud, not on
a real TPU. --workdir has to be on a file system shared by all hosts: --share mounts one (Filestore, NFS) at
/mnt/shared; --shared names one that --setup mounts. The same command resumes an interrupted run.

This clone is copied without the files that git ignores. If the current directory is another one, with your own
experiments, it is copied too, and the experiment runs there. Setup installs Python >= 3.11 with uv if a host has
none. --check compiles the training step for the slice before it is created, and stops if it does not fit. --do selects
from the steps create,copy,setup,run,logs,delete; by default the first four are done and the slice keeps running.

Exit code of run: 0, or the largest of the hosts' exit codes (75: interrupted and saved).
"""

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

from launch import command, experiment

STEPS = ('create', 'copy', 'setup', 'run', 'logs', 'delete')
TREE = 'lecture4'  # directory of this clone on the hosts, in the home directory
PROJECT = 'project'  # directory on the hosts of the current directory, if it is another one
MOUNT = '/mnt/shared'
# uv takes a Python >= 3.11 of the host, or downloads one: the images of TPU VMs have 3.10.
SETUP = (
    'export PATH="$HOME/.local/bin:$PATH" && '
    '{ command -v uv || curl -LsSf https://astral.sh/uv/install.sh | sh; } > /dev/null && '
    "uv venv -q --allow-existing --python '>=3.11' .venv && "
    "uv pip install -q --python .venv -c requirements.lock -e . 'jax[tpu]'"
)


class Generation(NamedTuple):
    """A generation of TPUs.

    Attributes:
      runtime: Software version of its VMs with JAX.
      unit: Unit that the number in the accelerator type counts, and that it is a multiple of.
      sizes: Valid numbers other than multiples of the unit.
    """

    runtime: str
    unit: int
    sizes: tuple[int, ...] = ()


# https://cloud.google.com/tpu/docs/runtimes. The number counts TensorCores up to v5p, else chips.
GENERATIONS = {
    'v2': Generation('tpu-ubuntu2204-base', 8),
    'v3': Generation('tpu-ubuntu2204-base', 8),
    'v4': Generation('tpu-ubuntu2204-base', 8),
    'v5p': Generation('v2-alpha-tpuv5', 8),
    'v5litepod': Generation('v2-alpha-tpuv5-lite', 8, (1, 4)),
    'v6e': Generation('v2-alpha-tpuv6e', 8, (1, 4)),
}
FAILED_STATES = ('FAILED', 'SUSPENDED', 'SUSPENDING')


def main(argv: list[str]) -> int:
    """Parse the options, then do the steps one after another.

    Args:
      argv: The words of the command line.

    Returns:
      The exit code.

    Raises:
      LaunchError: A mistake in the options, or gcloud fails.
    """
    launcher_args, words = command.split(argv)
    parser = command.parser('launch.tpu', __doc__ or '')
    add = parser.add_argument
    add('--name', required=True, help='Name of the slice and of its queued resource.')
    add('--zone', required=True, help='Zone of the slice.')
    add('--project', default='', help="Google Cloud project. Default: gcloud's own.")
    add('--type', default='', help='Accelerator type, for example v5litepod-16.')
    add('--runtime', default='', help='Software version of the VMs. Default: that of --type.')
    add('--spot', action='store_true', help='Use spot capacity: cheaper, and may be preempted.')
    add('--share', default='', help=f'HOST:/PATH of an NFS share to mount at {MOUNT}.')
    add('--shared', default='', help='Directory that all hosts share, mounted by --setup.')
    add(
        '--data',
        default='',
        help='gs:// directory written by launch.data, copied to every host and read there.',
    )
    add('--setup', default=SETUP, help='Command that installs the copied tree.')
    add(
        '--do',
        default='create,copy,setup,run',
        help=f'Steps to do, of {",".join(STEPS)}. Default: %(default)s.',
    )
    add(
        '--poll',
        type=float,
        default=30,
        help='Seconds between queries of the state. Default: 30.',
    )
    add(
        '--check',
        action='store_true',
        help='Compile the training step for --type first, on this machine with libtpu, and stop if it does not fit.',
    )
    options = parser.parse_args(launcher_args)
    steps = options.do.split(',')
    if unknown := [step for step in steps if step not in STEPS]:
        raise command.LaunchError(f'--do {unknown[0]}: expected steps of {", ".join(STEPS)}')
    if 'create' in steps and not options.type:
        raise command.LaunchError('--type is required to create a slice, for example v5litepod-16')
    if options.share and not re.fullmatch(r'[^:/]+:/.*', options.share):
        raise command.LaunchError(f'--share {options.share}: expected HOST:/PATH')
    if 'create' in steps:
        recommended = generation(options.type).runtime
        options.runtime = options.runtime or recommended
    if options.check and not (options.type and 'run' in steps):
        raise command.LaunchError('--check compiles what runs: it needs --type and the step run')
    line = []
    if 'run' in steps:
        line = experiment.command_line(words, f'$HOME/{TREE}/.venv/bin/python')
        roots = [MOUNT if options.share else '', options.shared]
        example = f'use {MOUNT}/NAME with --share HOST:/PATH, or name one that --setup mounts with '
        workdir = experiment.option(words, 'workdir')
        experiment.check_shared(workdir, roots, f'{example}--shared')
    if not options.dry_run:
        command.require('gcloud', 'install the Google Cloud CLI')
    if line:
        experiment.check(words)
        if options.check:
            experiment.check_compiled(experiment.command_line(words), topology(options.type))
        line = experiment.with_option(line, 'platform', 'tpu')
    functions: dict[str, Callable[[argparse.Namespace], int | None]] = {
        'create': create,
        'copy': copy,
        'setup': setup,
        'run': lambda options: run(options, line),
        'logs': lambda options: print(ssh(options, f'tail -n 50 {directory()}/run.log')),
        'delete': delete,
    }
    code = 0
    for step in STEPS:
        if step in steps:
            print(f'launch.tpu: {step}', file=sys.stderr)
            code = functions[step](options) or 0
    return code


def generation(accelerator: str) -> Generation:
    """The generation of an accelerator type.

    Args:
      accelerator: For example 'v5litepod-16'.

    Raises:
      LaunchError: There is no such type.
    """
    name, _, number = accelerator.partition('-')
    size = int(number) if number.isdecimal() else 0
    found = GENERATIONS.get(name)
    if found and size and (size in found.sizes or size % found.unit == 0):
        return found
    hint = f'expected GENERATION-SIZE with a generation of {", ".join(GENERATIONS)}'
    if found:
        sizes = ', '.join(map(str, (*found.sizes, f'a multiple of {found.unit}')))
        hint = f'expected {name}-SIZE with a size of {sizes}'
    if name in ('v5e', 'v5lite'):
        hint = f'v5e is called v5litepod: v5litepod-{number or 16}'
    if name.startswith(('tpu7', 'v7')):
        hint = 'TPU7x has no queued resources; use launch.gke'
    raise command.LaunchError(f'--type {accelerator}: {hint}')


def topology(accelerator: str) -> str:
    """The topology of a slice as `launch.compile` names it: 'v5e:4x4' of 'v5litepod-16'.

    Args:
      accelerator: An accelerator type.

    Raises:
      LaunchError: There is no such type, or no compiler for it.
    """
    generation(accelerator)
    name, _, number = accelerator.partition('-')
    is_flat = name in ('v5litepod', 'v6e')
    chips = int(number) if is_flat else int(number) // 2
    power = chips.bit_length() - 1
    if chips != 2**power or name in ('v2', 'v3'):
        known = 'v4, v5p, v5litepod and v6e with a power of 2'
        raise command.LaunchError(
            f'--check: the shape of {accelerator} is not known; only of {known}'
        )
    n_axes = 2 if is_flat else 3
    sides = [2 ** ((power + i) // n_axes) for i in range(n_axes)]
    if not is_flat and chips == 4:
        sides = [2, 2, 1]
    return f'{name.replace("litepod", "e")}:{"x".join(map(str, sides))}'


def directory() -> str:
    """The directory on the hosts in which the experiment runs."""
    return TREE if pathlib.Path.cwd().is_relative_to(command.ROOT) else PROJECT


def gcloud(options: argparse.Namespace, *words: str) -> str:
    """Call `gcloud compute tpus ...` in the zone and project of the options; returns its output."""
    location = [f'--zone={options.zone}']
    if options.project:
        location.append(f'--project={options.project}')
    return command.call(['gcloud', 'compute', 'tpus', *words, *location], options.dry_run)


def ssh(options: argparse.Namespace, text: str) -> str:
    """Run a shell command on all hosts in parallel; returns their output."""
    return gcloud(
        options, 'tpu-vm', 'ssh', options.name, '--worker=all', f'--command={text}'
    ).rstrip()


def create(options: argparse.Namespace) -> None:
    """Request the slice and wait until it is active.

    Raises:
      LaunchError: The request failed.
    """
    try:
        gcloud(
            options,
            'queued-resources',
            'create',
            options.name,
            f'--node-id={options.name}',
            f'--accelerator-type={options.type}',
            f'--runtime-version={options.runtime}',
            *(['--spot'] if options.spot else []),
        )
    except command.LaunchError as error:
        if 'exist' not in str(error).lower():  # an existing slice is used again
            raise
    query = ('queued-resources', 'describe', options.name, '--format=value(state.state)')
    while (state := gcloud(options, *query).strip()) != 'ACTIVE' and not options.dry_run:
        if state in FAILED_STATES:
            raise command.LaunchError(
                f'the request {options.name} is {state}; delete it with --do delete, then try another --zone'
            )
        time.sleep(options.poll)


def copy(options: argparse.Namespace) -> None:
    """Copy this clone, with uncommitted changes, and the current directory if it is another to every host."""
    trees = {TREE: command.ROOT}
    if directory() == PROJECT:
        trees[PROJECT] = pathlib.Path.cwd()
    for name, tree in trees.items():
        with tempfile.TemporaryDirectory(prefix='launch-') as temporary:
            archive = pathlib.Path(temporary) / f'{name}.tgz'
            if not options.dry_run:
                pack(tree, archive)
            gcloud(options, 'tpu-vm', 'scp', str(archive), f'{options.name}:', '--worker=all')
        ssh(options, f'mkdir -p {name} && tar -xzf {name}.tgz -C {name}')


def pack(tree: pathlib.Path, archive: pathlib.Path) -> None:
    """Write the files of a directory into a tar file, without those that git ignores.

    Args:
      tree: The directory, inside a git repository, or the directory of this package.
      archive: The file.

    Raises:
      LaunchError: The directory is not in a git repository.
    """
    list_files = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(list_files, cwd=tree, capture_output=True)
    if listed.returncode:
        fix = 'clone lecture4 and launch from there' if tree == command.ROOT else 'git init it'
        raise command.LaunchError(
            f'{tree} is not in a git repository, which lists the files to copy; {fix}'
        )
    files = [n for n in listed.stdout.split(b'\0') if n and (tree / os.fsdecode(n)).is_file()]
    words = ['tar', '-czf', str(archive), '-C', str(tree), '--null', '-T', '-']
    subprocess.run(words, input=b'\0'.join(files), check=True)


def setup(options: argparse.Namespace) -> None:
    """Install the tree on every host, mount the share and copy the data sets."""
    ssh(options, f'cd {TREE} && {options.setup}')
    if options.share:
        mount = f'sudo mount -t nfs {shlex.quote(options.share)} {MOUNT}'
        ssh(
            options,
            f'sudo apt-get -qq install -y nfs-common && sudo mkdir -p {MOUNT} && '
            f'(mountpoint -q {MOUNT} || {mount}) && sudo chmod 777 {MOUNT}',
        )
    if options.data:
        source = shlex.quote(options.data.rstrip('/'))
        ssh(
            options,
            f'mkdir -p data && gcloud storage rsync --recursive {source} data && '
            'cd data && sha256sum --quiet -c SHA256SUMS',
        )


def run(options: argparse.Namespace, line: list[str]) -> int:
    """Start the experiment on all hosts, detached from the connection, and wait for it.

    Args:
      options: The launcher's options.
      line: The experiment's command line.

    Returns:
      The largest exit code of the hosts.

    Raises:
      LaunchError: No host reports an exit code.
    """
    data = ['--data_dir', '../data'] if options.data else []
    python, *rest = [*line, *data]
    inner = f'"{python}" {shlex.join(rest)} > run.log 2>&1; echo $? > run.code'
    ssh(
        options,
        f'cd {directory()} && rm -f run.code && '
        f'(setsid nohup sh -c {shlex.quote(inner)} > /dev/null 2>&1 < /dev/null &)',
    )
    query = f'cat {directory()}/run.code 2> /dev/null || echo running'
    if options.dry_run:
        ssh(options, query)
        return 0
    while 'running' in (states := ssh(options, query).split()):
        time.sleep(options.poll)
    codes = [int(word) for word in states if word.isdigit()]
    if not codes:
        raise command.LaunchError(
            f'no host reports an exit code ({" ".join(states)}); read the log with --do logs'
        )
    if code := max(codes):
        print(ssh(options, f'tail -n 5 {directory()}/run.log'), file=sys.stderr)
        print(f'launch.tpu: the hosts exited with {" ".join(map(str, codes))}', file=sys.stderr)
        return code
    print(ssh(options, f'tail -n 5 {directory()}/run.log'))
    return 0


def delete(options: argparse.Namespace) -> None:
    """Delete the slice and its request, with its disks."""
    gcloud(options, 'queued-resources', 'delete', options.name, '--force', '--quiet')


if __name__ == '__main__':
    command.main('launch.tpu', main)
