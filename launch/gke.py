r"""Run an experiment on TPU slices of a GKE cluster, as a JobSet: one pod per host, all slices one run.

    python -m launch.gke --name a --image IMAGE --accelerator tpu-v5-lite-podslice --topology 4x4 --claim c -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a
    python -m launch.gke --name a --do logs
    python -m launch.gke --dry_run --name a --image IMAGE --accelerator tpu-v6e-slice --topology 4x4 --slices 2 \
        --claim c -- python -m experiments.autoencoders.deep --workdir /mnt/shared/a

The cluster needs JobSet and node pools of the accelerator; the image has this tree in /lecture4, installed
with jax[tpu] (launch/Dockerfile builds it); your own experiment lies in the directory --directory of an image based
on it. If a pod fails, the whole set restarts and resumes, up to --restarts times; exit code 2, a mistake in the
command line, does not restart. The launcher was tested with a stand-in for kubectl and by the form of the manifest,
not on a real cluster.

--claim is a volume claim that all pods may write to (ReadWriteMany, for example Filestore), mounted at
/mnt/shared, where --workdir has to be: files that a pod writes elsewhere are lost with it. The manifest is printed as
JSON, which kubectl reads like YAML.
"""

import argparse
import json
import math
import re
import sys
from typing import Any

from launch import command, experiment

STEPS = ('apply', 'logs', 'delete')
USAGE = 2
MOUNT = '/mnt/shared'


def main(argv: list[str]) -> int:
    """Parse the options; apply the manifest, print logs, or delete the JobSet.

    Args:
      argv: The words of the command line.

    Returns:
      Exit code 0.

    Raises:
      LaunchError: A mistake in the options, or kubectl fails.
    """
    launcher_args, words = command.split(argv)
    parser = command.parser('launch.gke', __doc__ or '')
    add = parser.add_argument
    add('--name', required=True, help='Name of the JobSet.')
    add('--image', default='', help='Container image.')
    add(
        '--accelerator',
        default='',
        help='Accelerator of the node pool, for example tpu-v5-lite-podslice.',
    )
    add('--topology', default='', help='Topology of a slice, for example 4x4.')
    add('--chips_per_host', type=int, default=4, help='TPU chips per host. Default: 4.')
    add('--slices', type=int, default=1, help='Number of slices. Default: 1.')
    add('--claim', default='', help=f'Volume claim to mount at {MOUNT}.')
    add('--shared', default='', help='Directory that the image mounts and that all pods share.')
    add(
        '--directory',
        default='/lecture4',
        help='Directory of the image in which the experiment runs. Default: %(default)s.',
    )
    add('--restarts', type=int, default=3, help='Number of restarts of the whole set. Default: 3.')
    add('--queue', default='', help='Local queue of Kueue.')
    add('--do', default='apply', choices=STEPS, help='Action. Default: apply.')
    options = parser.parse_args(launcher_args)
    if not options.dry_run:
        command.require('kubectl', 'install it and point it at the cluster')
    name = f'jobset.sigs.k8s.io/jobset-name={options.name}'
    if options.do == 'logs':
        print(
            command.call(['kubectl', 'logs', '-l', name, '--prefix', '--tail=50'], options.dry_run)
        )
    elif options.do == 'delete':
        print(command.call(['kubectl', 'delete', 'jobset', options.name], options.dry_run))
    else:
        made = manifest(options, words)
        experiment.check(words)
        text = json.dumps(made, indent=2)
        if options.dry_run:
            print(text)
        else:
            print(command.call(['kubectl', 'apply', '-f', '-'], False, text).rstrip())
            print(
                f'launch.gke: python -m launch.gke --name {options.name} --do logs', file=sys.stderr
            )
    return 0


def hosts(topology: str, chips_per_host: int) -> int:
    """Number of hosts of a slice.

    Args:
      topology: 'AxB' or 'AxBxC'.
      chips_per_host: TPU chips per host.

    Returns:
      Number of hosts: 4 for 4x4 with 4 chips per host.

    Raises:
      LaunchError: The topology is malformed, or not divisible by the chips per host.
    """
    if not re.fullmatch(r'\d+(x\d+){1,2}', topology):
        raise command.LaunchError(
            f"--topology '{topology}': expected AxB or AxBxC, for example 4x4"
        )
    chips = math.prod(map(int, topology.split('x')))
    if chips_per_host < 1 or chips % chips_per_host:
        raise command.LaunchError(
            f'the {chips} chips of --topology {topology} are not divisible by --chips_per_host '
            f'{chips_per_host}; see the machine type of the node pool'
        )
    return chips // chips_per_host


def manifest(options: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    """The JobSet of a run.

    Args:
      options: The launcher's options.
      words: The experiment's command line.

    Returns:
      The manifest, JSON-serializable.

    Raises:
      LaunchError: An option is missing or malformed.
    """
    for name in ('image', 'accelerator', 'topology'):
        if not getattr(options, name):
            raise command.LaunchError(f'--{name} is required')
    if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', options.name):
        raise command.LaunchError(
            f"--name {options.name}: expected at most 40 lower-case letters, digits and '-'"
        )
    n_hosts = hosts(options.topology, options.chips_per_host)
    line = experiment.with_option(experiment.command_line(words, 'python'), 'platform', 'tpu')
    experiment.check_shared(
        experiment.option(words, 'workdir'),
        [MOUNT if options.claim else '', options.shared],
        f'use {MOUNT}/NAME with --claim, or name one that the image mounts with --shared',
    )
    chips = {'google.com/tpu': options.chips_per_host}
    container = {
        'name': 'run',
        'image': options.image,
        'workingDir': options.directory,
        'command': line,
        # Ports of the coordinator, and of libtpu between hosts.
        'ports': [{'containerPort': port} for port in (8482, 8471, 8080)],
        'resources': {'requests': chips, 'limits': chips},
    }
    pod = {
        'restartPolicy': 'Never',
        'terminationGracePeriodSeconds': 120,  # for saving, after SIGTERM
        'nodeSelector': {
            'cloud.google.com/gke-tpu-accelerator': options.accelerator,
            'cloud.google.com/gke-tpu-topology': options.topology,
        },
        'containers': [container],
    }
    if options.claim:
        container['volumeMounts'] = [{'name': 'shared', 'mountPath': MOUNT}]
        pod['volumes'] = [{'name': 'shared', 'persistentVolumeClaim': {'claimName': options.claim}}]
    usage_error = {'operator': 'In', 'values': [USAGE]}
    job = {
        'parallelism': n_hosts,
        'completions': n_hosts,
        'completionMode': 'Indexed',
        'backoffLimit': 0,  # a run ends with the loss of a host: the set restarts, not the pod
        'podFailurePolicy': {'rules': [{'action': 'FailJob', 'onExitCodes': usage_error}]},
        'template': {'spec': pod},
    }
    metadata: dict[str, Any] = {
        'name': options.name,
        # Every slice has its own node pool.
        'annotations': {
            'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'
        },
    }
    if options.queue:
        metadata['labels'] = {'kueue.x-k8s.io/queue-name': options.queue}
    return {
        'apiVersion': 'jobset.x-k8s.io/v1alpha2',
        'kind': 'JobSet',
        'metadata': metadata,
        'spec': {
            'failurePolicy': {
                'maxRestarts': options.restarts,
                'rules': [{'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}],
            },
            'replicatedJobs': [
                {'name': 'slice', 'replicas': options.slices, 'template': {'spec': job}}
            ],
        },
    }


if __name__ == '__main__':
    command.main('launch.gke', main)
