"""One setting for all tests: CPU devices, strict promotion, checked annotations, a compilation cache."""

import collections
import gc
import importlib.metadata
import os
import pathlib

# Before anything loads it: threads of two workers' linear algebra fight over two cores.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import inspect

import jax
import jaxtyping
import pytest

import tests.annotations  # noqa: F401, which the hook names

# Annotations of arrays are checked wherever tests call into the library, but not in tests of bad input: what
# those expect is the library's own message.
jaxtyping.install_import_hook('lecture4', 'tests.annotations.check')

# The suite mostly compiles: unoptimized programs, by the older emitters and in one piece, take a quarter of that
# time. With XLA_FLAGS= it runs what users run, as the tests marked slow and the benchmarks should.
FLAGS = '--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1'
if importlib.metadata.version('jaxlib').startswith(
    '0.10.'
):  # later versions stop at an unknown flag
    FLAGS += ' --xla_cpu_use_fusion_emitters=false --xla_cpu_use_xnnpack=false'
    FLAGS += ' --xla_llvm_disable_expensive_passes=true'
os.environ.setdefault('XLA_FLAGS', FLAGS)

# Tracing makes millions of small objects that live on; at Python's default the collector visits them again and again.
gc.set_threshold(100_000, 50, 100)

CACHE = pathlib.Path(__file__).parent.parent / '.cache' / 'tests'

jax.config.update('jax_platforms', os.environ.get('JAX_PLATFORMS', 'cpu'))
jax.config.update('jax_num_cpu_devices', int(os.environ.get('TEST_DEVICES', '4')))
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.devices()  # from here on a run with --devices 1 cannot change their number for other tests


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test marked `cases(n)` the first n parameter sets run by default; the others are slow."""
    seen = collections.Counter()
    for item in items:
        if mark := item.get_closest_marker('cases'):
            name = item.nodeid.partition('[')[0]
            seen[name] += 1
            if seen[name] > mark.args[0]:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope='module', autouse=True)
def programs_let_go():
    """Each compiled program holds memory maps; past Linux's 65,530 a process, XLA crashes."""
    yield
    maps = pathlib.Path('/proc/self/maps')
    if maps.exists() and maps.read_bytes().count(b'\n') > 20_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def annotations_unchecked_under_bad_input(request):
    source = inspect.getsource(request.function) if hasattr(request, 'function') else ''
    jaxtyping.config.update('jaxtyping_disable', 'pytest.raises' in source)
    yield
    jaxtyping.config.update('jaxtyping_disable', False)


def without_figures():
    """For runs whose subject is not the report: drawing would take most of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('lecture4.train.report._draw', lambda *given: ({}, []))
        yield


no_figures = pytest.fixture(without_figures, scope='module', name='no_figures')
no_drawing = pytest.fixture(without_figures, name='no_drawing')  # for one test


@pytest.fixture(scope='session')
def manual_dir():
    """The folder of real data sets, or a skip with the reason."""
    path = os.environ.get('LECTURE4_MANUAL_DIR')
    if not path or not pathlib.Path(path).is_dir():
        pytest.skip('LECTURE4_MANUAL_DIR does not name a folder of data sets')
    return pathlib.Path(path)


@pytest.fixture
def x64():
    """Float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
