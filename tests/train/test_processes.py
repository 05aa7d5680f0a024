"""Detection of the processes of a run, and the errors of their rendezvous."""

import dataclasses
import http.server
import socket
import threading
import time

import pytest

from launch import local
from lecture4.train.config import UsageError
from lecture4.train.distributed import processes, rendezvous, runtime
from lecture4.train.distributed.processes import Processes
from tests.train import toy

CONFIG = toy.Config()
SLURM = {
    'SLURM_JOB_ID': '1000',
    'SLURM_STEP_ID': '2',
    'SLURM_STEP_NODELIST': 'gpu[003-004,7]',
    'SLURM_STEP_NUM_TASKS': '8',
    'SLURM_STEP_NUM_NODES': '2',
    'SLURM_NTASKS': '8',
    'SLURM_PROCID': '5',
    'SLURM_LOCALID': '1',
}


def flags(**options):
    return dataclasses.replace(CONFIG, **options)


@pytest.mark.parametrize(
    'environ, expected',
    [
        ({}, Processes()),
        (SLURM, Processes(8, 5, f'gpu003:{61440 + 8002 % 4096}', (1,), 'Slurm')),
        # A batch script is not a step, though it knows the number of tasks.
        ({k: v for k, v in SLURM.items() if k != 'SLURM_STEP_NODELIST'}, Processes()),
        ({**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, Processes()),
        (
            {**SLURM, 'SLURM_STEP_NODELIST': 'a,b', 'JAX_COORDINATOR_PORT': '77'},
            Processes(8, 5, 'a:77', (1,), 'Slurm'),
        ),
        (
            {**SLURM, 'SLURM_STEP_NODELIST': 'n[1-8]-ib', 'SLURM_STEP_NUM_NODES': '8'},
            # One task per node owns all its GPUs.
            Processes(8, 5, f'n1-ib:{61440 + 8002 % 4096}', None, 'Slurm'),
        ),
        (
            {**SLURM, 'CUDA_VISIBLE_DEVICES': '3'},  # one GPU bound to each task
            Processes(8, 5, f'gpu003:{61440 + 8002 % 4096}', None, 'Slurm'),
        ),
        (
            {'TPU_WORKER_HOSTNAMES': 'h0,h1,h2,h3', 'TPU_WORKER_ID': '3'},
            Processes(4, 3, 'h0:8482', None, 'TPU'),
        ),
        ({'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'}, Processes()),
        (
            {
                'TPU_WORKER_HOSTNAMES': 'h0,h1',
                'TPU_WORKER_ID': '1',
                'MEGASCALE_NUM_SLICES': '4',
                'MEGASCALE_SLICE_ID': '2',
                'MEGASCALE_COORDINATOR_ADDRESS': 's0:8080',
            },
            Processes(8, 5, 's0:8482', None, 'TPU'),
        ),
    ],
)
def test_processes_are_detected_from_the_environment(environ, expected):
    environ = {'TPU_SKIP_MDS_QUERY': '1', **environ}
    assert processes.detect(CONFIG, environ) == expected


def test_flags_come_before_the_environment():
    config = flags(coordinator='10.0.0.1:4000', processes=3, process_id=2)
    assert processes.detect(config, SLURM) == Processes(3, 2, '10.0.0.1:4000', None, 'flags')


def test_a_tpu_vm_is_detected_from_its_metadata():
    metadata = {
        'worker-network-endpoints': 'w0:0:10.1.0.1,w1:1:10.1.0.2',
        'agent-worker-number': '1',
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.headers['Metadata-Flavor'] == 'Google'
            body = metadata[self.path.rpartition('/')[2]].encode()
            self.send_response(200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environ = {'GCE_METADATA_IP': f'127.0.0.1:{server.server_port}'}
        detected = processes.detect(CONFIG, environ)
        server.shutdown()
    assert detected == Processes(2, 1, '10.1.0.1:8482', None, 'TPU')
    # no metadata server: one process
    assert processes.detect(CONFIG, environ) == Processes()


@pytest.mark.parametrize(
    'options, message',
    [
        ({'processes': 2}, 'give all three'),
        ({'coordinator': 'a:1', 'process_id': 0}, 'give all three'),
        ({'coordinator': 'a:1', 'processes': 2, 'process_id': 2}, 'expected 0 to 1'),
        ({'coordinator': 'a', 'processes': 2, 'process_id': 1}, 'HOST:PORT'),
    ],
)
def test_contradicting_flags_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        processes.detect(flags(**options), {})


@pytest.mark.parametrize(
    'options, message',
    [
        ({'parallel': 'pmap'}, 'pmap works in one process, not in 2; use --parallel jit'),
        ({'devices': 3}, '--devices 3 is not divisible by 2 processes; use 2'),
    ],
)
def test_options_unsupported_by_several_processes(options, message):
    config = flags(coordinator='127.0.0.1:1', processes=2, process_id=1, **options)
    with pytest.raises(UsageError, match=message):
        runtime.start(config)


def rendezvous_of(members, timeout=5.0):
    """Rendezvous of processes (index, options, count) as threads; {position: error message}."""
    port = local.free_port()
    messages = {}

    def run(position, index, options, count):
        process = Processes(count, index, f'127.0.0.1:{port}')
        function = rendezvous._coordinate if index == 0 else rendezvous._connect
        try:
            function(process, options, timeout)
        except UsageError as error:
            messages[position] = str(error)

    threads = [
        threading.Thread(target=run, args=(position, *member))
        for position, member in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return messages


def test_complete_rendezvous_passes():
    assert rendezvous_of([(i, {'steps': 3}, 3) for i in range(3)]) == {}


def test_a_missing_process_is_named_to_all():
    messages = rendezvous_of([(0, {}, 4), (2, {}, 4)], timeout=1.0)
    assert set(messages) == {0, 1}
    for text in messages.values():
        assert text.startswith('process 1, 3 of 4 did not connect') and '--init_timeout' in text


def test_different_options_are_named_to_all():
    messages = rendezvous_of(
        [(0, {'steps': 3, 'processes': 2}, 2), (1, {'steps': 4, 'processes': 2}, 2)]
    )
    assert set(messages.values()) == {
        'process 1 was started with --steps 4, process 0 with 3; give all processes the same options'
    }


def test_a_different_number_of_processes_is_refused():
    messages = rendezvous_of([(0, {'processes': 2}, 2), (2, {'processes': 3}, 3)])
    assert set(messages) == {0, 1}
    assert all('started with --processes 3, process 0 with 2' in text for text in messages.values())


def test_two_processes_with_one_index_are_refused():
    messages = rendezvous_of([(0, {}, 3), (1, {}, 3), (1, {}, 3)])
    assert set(messages) == {0, 1, 2}
    assert all('two processes have --process_id 1' in text for text in messages.values())


def test_a_missing_coordinator_is_reported():
    process = Processes(2, 1, f'127.0.0.1:{local.free_port()}')
    start = time.monotonic()
    with pytest.raises(
        UsageError, match=r'no coordinator at .* within --init_timeout 1 s .*correct'
    ):
        rendezvous._connect(process, {}, 1.0)
    assert time.monotonic() - start < 5


def test_a_port_in_use_is_reported():
    with socket.create_server(('', 0)) as server:
        process = Processes(2, 0, f'127.0.0.1:{server.getsockname()[1]}')
        with pytest.raises(UsageError, match=r'cannot be opened .* choose another port'):
            rendezvous._coordinate(process, {}, 1.0)


def test_other_clients_at_the_port_are_ignored():
    port = local.free_port()
    messages = []

    def listen():
        try:
            rendezvous._coordinate(Processes(2, 0, f'127.0.0.1:{port}'), {}, 20.0)
        except UsageError as error:
            messages.append(str(error))

    thread = threading.Thread(target=listen)
    thread.start()
    for request in (b'GET / HTTP/1.1\r\n\r\n', b'{}\n', b''):
        for _ in range(100):
            try:
                with socket.create_connection(('127.0.0.1', port)) as client:
                    client.sendall(request)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
    rendezvous._connect(Processes(2, 1, f'127.0.0.1:{port}'), {}, 10.0)
    thread.join(10)
    assert not messages and not thread.is_alive()
