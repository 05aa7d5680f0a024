r"""Runs an experiment on all hosts of a Cloud TPU slice of VMs: create, copy, setup, run, logs, delete.

    python -m launch.tpu --name a --zone us-east5-b --type v5litepod-16 --share 10.0.0.2:/vol -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a
    python -m launch.tpu --name a --zone us-east5-b --do logs
    python -m launch.tpu --name a --zone us-east5-b --type v5litepod-16 --spot --dry_run -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a

It uses Google's queued resources and TPU VMs, a legacy interface: for generations up to v6e, and not
supported on TPU7x and later, for which there is launch.gke. It was tested with a stand-in for gcloud, not on
a real TPU. --workdir has to be on a file system shared by all hosts: --share mounts one (Filestore, NFS) at
/mnt/shared. The same command resumes an interrupted run.

The working tree is copied without the files that git ignores. --do selects from the steps
create,copy,setup,run,logs,delete; by default the first four are done and the slice keeps running.

Exit code of run: 0, or the largest of the hosts' exit codes (75: interrupted and saved).
"""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from launch import command

STEPS = ('create', 'copy', 'setup', 'run', 'logs', 'delete')
TREE = 'lecture4'  # directory on the hosts, in the home directory
SETUP = "python3 -m venv .venv && .venv/bin/pip install -q -c requirements.lock -e . 'jax[tpu]'"
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
    own, words = command.split(argv)
    parser = command.parser('launch.tpu', __doc__ or '')
    add = parser.add_argument
    add('--name', required=True, help='Name of the slice and of its queued resource.')
    add('--zone', required=True, help='Zone of the slice.')
    add('--project', default='', help="Google Cloud project. Default: gcloud's own.")
    add('--type', default='', help='Accelerator type, for example v5litepod-16.')
    add(
        '--runtime',
        default='v2-alpha-tpuv5-lite',
        help='Software version of the VMs. Default: %(default)s.',
    )
    add('--spot', action='store_true', help='Use spot capacity: cheaper, and may be preempted.')
    add('--share', default='', help='HOST:/PATH of an NFS share to mount at /mnt/shared.')
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
    options = parser.parse_args(own)
    steps = options.do.split(',')
    if unknown := [step for step in steps if step not in STEPS]:
        raise command.LaunchError(f'--do {unknown[0]}: expected steps of {", ".join(STEPS)}')
    if 'create' in steps and not options.type:
        raise command.LaunchError('--type is required to create a slice, for example v5litepod-16')
    if options.share and not re.fullmatch(r'[^:/]+:/.*', options.share):
        raise command.LaunchError(f'--share {options.share}: expected HOST:/PATH')
    line = command.experiment(words, '.venv/bin/python') if 'run' in steps else []
    if line and not command.option(words, 'workdir').startswith('/'):
        raise command.LaunchError(
            'the experiment needs --workdir /PATH on a file system shared by all hosts, for '
            'example /mnt/shared/NAME with --share'
        )
    if not options.dry_run:
        command.require('gcloud', 'install the Google Cloud CLI')
    functions: dict[str, Callable[[argparse.Namespace], int | None]] = {
        'create': create,
        'copy': copy,
        'setup': setup,
        'run': lambda options: run(options, line),
        'logs': lambda options: print(ssh(options, f'tail -n 50 {TREE}/run.log')),
        'delete': delete,
    }
    code = 0
    for step in STEPS:
        if step in steps:
            print(f'launch.tpu: {step}', file=sys.stderr)
            code = functions[step](options) or 0
    return code


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
                f'the request {options.name} is {state}; --do delete it, then try another --zone'
            )
        time.sleep(options.poll)


def copy(options: argparse.Namespace) -> None:
    """Copy the working tree, with uncommitted changes, to every host."""
    list_files = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    with tempfile.TemporaryDirectory(prefix='launch-') as directory:
        archive = pathlib.Path(directory) / f'{TREE}.tgz'
        if not options.dry_run:
            listed = subprocess.run(list_files, cwd=command.ROOT, capture_output=True, check=True)
            names = listed.stdout.split(b'\0')
            files = [n for n in names if n and (command.ROOT / n.decode()).is_file()]
            pack = ['tar', '-czf', str(archive), '-C', str(command.ROOT), '--null', '-T', '-']
            subprocess.run(pack, input=b'\0'.join(files), check=True)
        gcloud(options, 'tpu-vm', 'scp', str(archive), f'{options.name}:', '--worker=all')
    ssh(options, f'mkdir -p {TREE} && tar -xzf {TREE}.tgz -C {TREE}')


def setup(options: argparse.Namespace) -> None:
    """Install the tree on every host, mount the share and copy the data sets."""
    ssh(options, f'cd {TREE} && {options.setup}')
    if options.share:
        mount = f'sudo mount -t nfs {shlex.quote(options.share)} /mnt/shared'
        ssh(
            options,
            'sudo apt-get -qq install -y nfs-common && sudo mkdir -p /mnt/shared && '
            f'(mountpoint -q /mnt/shared || {mount}) && sudo chmod 777 /mnt/shared',
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
    experiment = shlex.join([*line, *data])
    inner = f'{experiment} > run.log 2>&1; echo $? > run.code'
    ssh(
        options,
        f'cd {TREE} && rm -f run.code && '
        f'(setsid nohup sh -c {shlex.quote(inner)} > /dev/null 2>&1 < /dev/null &)',
    )
    query = f'cat {TREE}/run.code 2> /dev/null || echo running'
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
        print(ssh(options, f'tail -n 5 {TREE}/run.log'), file=sys.stderr)
        print(f'launch.tpu: the hosts exited with {" ".join(map(str, codes))}', file=sys.stderr)
        return code
    print(ssh(options, f'tail -n 5 {TREE}/run.log'))
    return 0


def delete(options: argparse.Namespace) -> None:
    """Delete the slice and its request, with its disks."""
    gcloud(options, 'queued-resources', 'delete', options.name, '--force', '--quiet')


if __name__ == '__main__':
    command.main('launch.tpu', main)
