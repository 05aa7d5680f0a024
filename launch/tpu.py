r"""An experiment on all hosts of a Cloud TPU slice of VMs: create, copy, run, logs, delete.

The interface is Google's queued resources and TPU VMs, which is legacy: for generations up to v6e, not
supported on TPU7x and later, where launch.gke serves. No real TPU was used to test this launcher, only
a stand-in for gcloud. --workdir has to lie on a file system that all hosts share: --share mounts one
(Filestore, NFS) at /mnt/shared. The same command again goes on where a run was broken off.

    python -m launch.tpu --name a --zone us-east5-b --type v5litepod-16 --share 10.0.0.2:/vol -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a
    python -m launch.tpu --name a --zone us-east5-b --do logs
    python -m launch.tpu --name a --zone us-east5-b --type v5litepod-16 --spot --dry_run -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a

What is copied is the tree as it lies here, without what git ignores. --do takes some of the steps
create,copy,setup,run,logs,delete; without it the first four are done and the slice is left running.
Exit code of run: 0, or the largest of the hosts' codes (75: interrupted and saved).
"""

import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

from launch import command

STEPS = ('create', 'copy', 'setup', 'run', 'logs', 'delete')
TREE = 'lecture4'  # the folder on the hosts, in the home directory
SETUP = "python3 -m venv .venv && .venv/bin/pip install -q -c requirements.lock -e . 'jax[tpu]'"
GONE = ('FAILED', 'SUSPENDED', 'SUSPENDING')


def main(argv: list[str]) -> int:
    """Parse the options, then do the steps one after another."""
    own, words = command.split(argv)
    parser = command.parser('launch.tpu', __doc__ or '')
    add = parser.add_argument
    add('--name', required=True, help='of the slice, and of its request')
    add('--zone', required=True)
    add('--project', default='', help="default: gcloud's own")
    add('--type', default='', help='accelerator type, for instance v5litepod-16')
    add('--runtime', default='v2-alpha-tpuv5-lite', help='software version (default %(default)s)')
    add('--spot', action='store_true', help='cheaper, and taken away at any time')
    add('--share', default='', help='HOST:/PATH of an NFS share, mounted at /mnt/shared')
    add(
        '--data',
        default='',
        help='gs:// folder of launch.data, copied to every host and read there',
    )
    add('--setup', default=SETUP, help='command that installs, in the copied tree')
    add(
        '--do',
        default='create,copy,setup,run',
        help=f'some of {",".join(STEPS)} (default %(default)s)',
    )
    add('--poll', type=float, default=30, help='seconds between looks at it (default 30)')
    options = parser.parse_args(own)
    steps = options.do.split(',')
    if unknown := [step for step in steps if step not in STEPS]:
        raise command.LaunchError(f'--do {unknown[0]}; the steps are {", ".join(STEPS)}')
    if 'create' in steps and not options.type:
        raise command.LaunchError('--type is wanted to create a slice, for instance v5litepod-16')
    if options.share and not re.fullmatch(r'[^:/]+:/.*', options.share):
        raise command.LaunchError(f'--share {options.share}; HOST:/PATH is wanted')
    line = command.experiment(words, '.venv/bin/python') if 'run' in steps else []
    if line and not command.option(words, 'workdir').startswith('/'):
        raise command.LaunchError(
            'the experiment needs --workdir /PATH on a file system that all hosts share, for '
            'instance /mnt/shared/NAME with --share'
        )
    if not options.dry_run:
        command.require('gcloud', 'install the Google Cloud CLI')
    do = {
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
            code = do[step](options) or 0
    return code


def gcloud(options, *words: str) -> str:
    """A call of `gcloud compute tpus ...` in our zone and project."""
    where = [f'--zone={options.zone}']
    if options.project:
        where.append(f'--project={options.project}')
    return command.call(['gcloud', 'compute', 'tpus', *words, *where], options.dry_run)


def ssh(options, text: str) -> str:
    """A shell command on all hosts at once; their output together."""
    return gcloud(
        options, 'tpu-vm', 'ssh', options.name, '--worker=all', f'--command={text}'
    ).rstrip()


def create(options):
    """Ask for the slice and wait until it is there."""
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
        if 'exist' not in str(error).lower():  # the same command again takes the slice it has
            raise
    ask = ('queued-resources', 'describe', options.name, '--format=value(state.state)')
    while (state := gcloud(options, *ask).strip()) != 'ACTIVE' and not options.dry_run:
        if state in GONE:
            raise command.LaunchError(
                f'the request {options.name} is {state}; --do delete it, then try another --zone'
            )
        time.sleep(options.poll)


def copy(options):
    """The tree, as git sees it with its changes, in one file to every host."""
    listed = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    with tempfile.TemporaryDirectory(prefix='launch-') as folder:
        archive = pathlib.Path(folder) / f'{TREE}.tgz'
        if not options.dry_run:
            names = subprocess.run(listed, cwd=command.ROOT, capture_output=True, check=True).stdout
            there = [n for n in names.split(b'\0') if n and (command.ROOT / n.decode()).is_file()]
            packed = ['tar', '-czf', str(archive), '-C', str(command.ROOT), '--null', '-T', '-']
            subprocess.run(packed, input=b'\0'.join(there), check=True)
        gcloud(options, 'tpu-vm', 'scp', str(archive), f'{options.name}:', '--worker=all')
    ssh(options, f'mkdir -p {TREE} && tar -xzf {TREE}.tgz -C {TREE}')


def setup(options):
    """Install, mount the share, fetch the data."""
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


def run(options, line: list[str]) -> int:
    """Start on all hosts, apart from the connection that starts it; wait; return the largest code."""
    data = ['--data_dir', '../data'] if options.data else []
    experiment = shlex.join([*line, *data])
    inner = f'{experiment} > run.log 2>&1; echo $? > run.code'
    ssh(
        options,
        f'cd {TREE} && rm -f run.code && '
        f'(setsid nohup sh -c {shlex.quote(inner)} > /dev/null 2>&1 < /dev/null &)',
    )
    ask = f'cat {TREE}/run.code 2> /dev/null || echo running'
    if options.dry_run:
        ssh(options, ask)
        return 0
    while 'running' in (answers := ssh(options, ask).split()):
        time.sleep(options.poll)
    codes = [int(word) for word in answers if word.isdigit()]
    if not codes:
        raise command.LaunchError(f'no host answered ({" ".join(answers)}); look with --do logs')
    if code := max(codes):
        print(ssh(options, f'tail -n 5 {TREE}/run.log'), file=sys.stderr)
        print(f'launch.tpu: the hosts ended with {" ".join(map(str, codes))}', file=sys.stderr)
        return code
    print(ssh(options, f'tail -n 5 {TREE}/run.log'))
    return 0


def delete(options):
    """The slice and its request; nothing on its own disks is kept."""
    gcloud(options, 'queued-resources', 'delete', options.name, '--force', '--quiet')


if __name__ == '__main__':
    command.main('launch.tpu', main)
