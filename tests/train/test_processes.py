"""Who decides how many processes a run has, and what they say when one of them is wrong."""

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
        # the shell of a batch script is no step, though it knows how many tasks there will be
        ({k: v for k, v in SLURM.items() if k != 'SLURM_STEP_NODELIST'}, Processes()),
        ({**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, Processes()),
        (
            {**SLURM, 'SLURM_STEP_NODELIST': 'a,b', 'JAX_COORDINATOR_PORT': '77'},
            Processes(8, 5, 'a:77', (1,), 'Slurm'),
        ),
        (
            {**SLURM, 'SLURM_STEP_NODELIST': 'n[1-8]-ib', 'SLURM_STEP_NUM_NODES': '8'},
            # a task a node has all its GPUs
            Processes(8, 5, f'n1-ib:{61440 + 8002 % 4096}', None, 'Slurm'),
        ),
        (
            {**SLURM, 'CUDA_VISIBLE_DEVICES': '3'},  # Slurm has bound one GPU to each task
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
def test_who_decides(environ, expected):
    environ = {'TPU_SKIP_MDS_QUERY': '1', **environ}
    assert processes.detect(CONFIG, environ) == expected


def test_flags_come_before_the_environment():
    config = flags(coordinator='10.0.0.1:4000', processes=3, process_id=2)
    found = processes.detect(config, SLURM)
    assert found == Processes(3, 2, '10.0.0.1:4000', None, 'flags')


def test_a_tpu_vm_tells_by_its_metadata():
    answers = {
        'worker-network-endpoints': 'w0:0:10.1.0.1,w1:1:10.1.0.2',
        'agent-worker-number': '1',
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.headers['Metadata-Flavor'] == 'Google'
            body = answers[self.path.rpartition('/')[2]].encode()
            self.send_response(200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environ = {'GCE_METADATA_IP': f'127.0.0.1:{server.server_port}'}
        found = processes.detect(CONFIG, environ)
        server.shutdown()
    assert found == Processes(2, 1, '10.1.0.1:8482', None, 'TPU')
    # no metadata server: one process
    assert processes.detect(CONFIG, environ) == Processes()


@pytest.mark.parametrize(
    'options, message',
    [
        ({'processes': 2}, 'give all three'),
        ({'coordinator': 'a:1', 'process_id': 0}, 'give all three'),
        ({'coordinator': 'a:1', 'processes': 2, 'process_id': 2}, 'process ids are 0 to 1'),
        ({'coordinator': 'a', 'processes': 2, 'process_id': 1}, 'HOST:PORT'),
    ],
)
def test_flags_that_contradict(options, message):
    with pytest.raises(UsageError, match=message):
        processes.detect(flags(**options), {})


@pytest.mark.parametrize(
    'options, message',
    [
        ({'parallel': 'pmap'}, 'pmap in 2 processes; use --parallel jit'),
        ({'devices': 3}, '--devices 3 cannot be shared by 2 processes; use 2'),
    ],
)
def test_what_several_processes_cannot_do(options, message):
    config = flags(coordinator='127.0.0.1:1', processes=2, process_id=1, **options)
    with pytest.raises(UsageError, match=message):
        runtime.start(config)


def call(count, members, timeout=5.0, joined=None):
    """The roll call of several processes, as threads; returns what each raised."""
    port = local.free_port()
    raised = {}

    def run(name, index, options, count):
        ours = Processes(count, index, f'127.0.0.1:{port}')
        function = rendezvous._call_roll if index == 0 else rendezvous._answer_roll
        try:
            function(ours, options, timeout)
        except UsageError as error:
            raised[name] = str(error)

    threads = [
        threading.Thread(target=run, args=(name, index, options, own_count))
        for name, (index, options, own_count) in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


def test_the_roll_call_lets_all_pass():
    assert call(3, [(i, {'steps': 3}, 3) for i in range(3)]) == {}


def test_a_peer_that_does_not_come_is_named_to_all():
    raised = call(4, [(0, {}, 4), (2, {}, 4)], timeout=1.0)
    assert set(raised) == {0, 1}
    for text in raised.values():
        assert text.startswith('process 1, 3 of 4 did not come') and '--init_timeout' in text


def test_other_options_are_named_to_all():
    raised = call(2, [(0, {'steps': 3, 'processes': 2}, 2), (1, {'steps': 4, 'processes': 2}, 2)])
    assert set(raised.values()) == {
        'process 1 was started with --steps 4, process 0 with 3; give all processes the same options'
    }


def test_another_number_of_processes():
    raised = call(2, [(0, {'processes': 2}, 2), (2, {'processes': 3}, 3)])
    assert set(raised) == {0, 1}
    assert all('started with --processes 3, process 0 with 2' in text for text in raised.values())


def test_two_processes_with_one_number():
    raised = call(3, [(0, {}, 3), (1, {}, 3), (1, {}, 3)])
    assert set(raised) == {0, 1, 2}
    assert all('two processes have --process_id 1' in text for text in raised.values())


def test_a_coordinator_that_is_not_there():
    ours = Processes(2, 1, f'127.0.0.1:{local.free_port()}')
    began = time.monotonic()
    with pytest.raises(
        UsageError, match=r'no coordinator at .* within --init_timeout 1 s .*correct'
    ):
        rendezvous._answer_roll(ours, {}, 1.0)
    assert time.monotonic() - began < 5


def test_a_port_in_use():
    with socket.create_server(('', 0)) as server:
        ours = Processes(2, 0, f'127.0.0.1:{server.getsockname()[1]}')
        with pytest.raises(UsageError, match=r'cannot be opened .* choose another port'):
            rendezvous._call_roll(ours, {}, 1.0)


def test_strangers_at_the_port_are_no_peers():
    port = local.free_port()
    raised = []

    def listen():
        try:
            rendezvous._call_roll(Processes(2, 0, f'127.0.0.1:{port}'), {}, 20.0)
        except UsageError as error:
            raised.append(str(error))

    thread = threading.Thread(target=listen)
    thread.start()
    for words in (b'GET / HTTP/1.1\r\n\r\n', b'{}\n', b''):
        for _ in range(100):
            try:
                with socket.create_connection(('127.0.0.1', port)) as stranger:
                    stranger.sendall(words)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
    rendezvous._answer_roll(Processes(2, 1, f'127.0.0.1:{port}'), {}, 10.0)
    thread.join(10)
    assert not raised and not thread.is_alive()
