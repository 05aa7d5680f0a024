r"""An experiment on TPU slices of a GKE cluster, as a JobSet: one pod a host, all slices one run.

The cluster has JobSet installed and node pools of the accelerator; the image holds this tree in
/lecture4, installed with jax[tpu] (launch/Dockerfile makes it). A pod that fails makes the whole set
start again and resume, up to --restarts times; exit code 2, a mistake in the command line, does not.
No real cluster was used to test this launcher, only a stand-in for kubectl and the manifest's form.

    python -m launch.gke --name a --image IMAGE --accelerator tpu-v5-lite-podslice --topology 4x4 --claim c -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a
    python -m launch.gke --name a --do logs
    python -m launch.gke --dry_run --name a --image IMAGE --accelerator tpu-v6e-slice --topology 4x4 --slices 2 -- \
        python -m experiments.autoencoders.deep --workdir /mnt/shared/a

--claim is a volume claim that all pods may write (ReadWriteMany, for instance Filestore), mounted at
/mnt/shared. The manifest is printed as JSON, which kubectl reads as it reads YAML.
"""

import json
import math
import re
import sys

from launch import command

STEPS = ('apply', 'logs', 'delete')
USAGE = 2


def main(argv: list[str]) -> int:
    """Parse the options, then apply the manifest, or show logs, or delete."""
    own, words = command.split(argv)
    parser = command.parser('launch.gke', __doc__ or '')
    add = parser.add_argument
    add('--name', required=True, help='of the JobSet')
    add('--image', default='', help='container image')
    add('--accelerator', default='', help="the node pool's, for instance tpu-v5-lite-podslice")
    add('--topology', default='', help='of a slice, for instance 4x4')
    add('--chips_per_host', type=int, default=4, help='(default 4)')
    add('--slices', type=int, default=1, help='(default 1)')
    add('--claim', default='', help='volume claim to mount at /mnt/shared')
    add('--restarts', type=int, default=3, help='of the whole set (default 3)')
    add('--queue', default='', help='local queue of Kueue')
    add('--do', default='apply', choices=STEPS, help='(default apply)')
    options = parser.parse_args(own)
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
        made = json.dumps(manifest(options, words), indent=2)
        if options.dry_run:
            print(made)
        else:
            print(command.call(['kubectl', 'apply', '-f', '-'], False, made).rstrip())
            print(
                f'launch.gke: python -m launch.gke --name {options.name} --do logs', file=sys.stderr
            )
    return 0


def hosts(topology: str, chips_per_host: int) -> int:
    """How many hosts a slice has: 4x4 with 4 chips each has 4."""
    if not re.fullmatch(r'\d+(x\d+){1,2}', topology):
        raise command.LaunchError(f"--topology '{topology}'; AxB or AxBxC is wanted, as 4x4")
    chips = math.prod(map(int, topology.split('x')))
    if chips_per_host < 1 or chips % chips_per_host:
        raise command.LaunchError(
            f'--topology {topology} has {chips} chips, which --chips_per_host {chips_per_host} '
            'does not divide; see the machine type of the node pool'
        )
    return chips // chips_per_host


def manifest(options, words: list[str]) -> dict:
    """The JobSet."""
    for name in ('image', 'accelerator', 'topology'):
        if not getattr(options, name):
            raise command.LaunchError(f'--{name} is wanted')
    if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', options.name):
        raise command.LaunchError(
            f"--name {options.name}; small letters, digits and '-', at most 40, are wanted"
        )
    line = command.experiment(words, 'python')
    if not command.option(words, 'workdir').startswith('/'):
        raise command.LaunchError(
            'the experiment needs --workdir /PATH that all pods share, for instance '
            '/mnt/shared/NAME with --claim'
        )
    n_hosts = hosts(options.topology, options.chips_per_host)
    chips = {'google.com/tpu': options.chips_per_host}
    container = {
        'name': 'run',
        'image': options.image,
        'workingDir': '/lecture4',
        'command': line,
        # of the coordinator, and of libtpu between hosts
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
        container['volumeMounts'] = [{'name': 'shared', 'mountPath': '/mnt/shared'}]
        pod['volumes'] = [{'name': 'shared', 'persistentVolumeClaim': {'claimName': options.claim}}]
    mistake = {'operator': 'In', 'values': [USAGE]}
    job = {
        'parallelism': n_hosts,
        'completions': n_hosts,
        'completionMode': 'Indexed',
        'backoffLimit': 0,  # one lost host is the end of a run: the set starts again, not the pod
        'podFailurePolicy': {'rules': [{'action': 'FailJob', 'onExitCodes': mistake}]},
        'template': {'spec': pod},
    }
    metadata: dict = {
        'name': options.name,
        # a slice has its node pool to itself
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
