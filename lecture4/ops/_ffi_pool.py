"""Work that a handler of XLA's foreign-function interface divides over XLA's threads; for handlers that numba compiles.

The parts of the work are claimed one by one, through an atomic counter, by the calling thread and by tasks on the pool.
The caller waits only for parts that a task has begun, so that it never waits for a thread of the pool: with one thread,
or when all are busy, it does everything itself. While it waits it gives its core to other threads, which may be the one
that it waits for. A task that starts later finds no part left. What tasks read lies on the heap, and whoever is last
frees it.
"""

import pathlib
import re
import zlib
from collections.abc import Callable
from typing import Any, no_type_check

import jax
from llvmlite import ir  # pyright: ignore[reportMissingImports]
from numba import njit, types  # pyright: ignore[reportMissingImports]
from numba.core import cgutils, typing  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

from lecture4.ops import _ffi_frame as ffi

WORD = ir.IntType(64)
# Words of what the caller and the tasks share: references, next part, parts, finished parts; then the payload.
REFERENCES, NEXT, PARTS, FINISHED, PAYLOAD = range(5)


@intrinsic
@no_type_check
def _add(typing_context, address, value):
    """Add to a word that threads share; returns what it was."""

    def build(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], WORD.as_pointer())
        return builder.atomic_rmw('add', pointer, values[1], 'seq_cst')

    return types.int64(types.int64, types.int64), build


@intrinsic
@no_type_check
def _read(typing_context, address):
    """Read a word that threads share."""

    def build(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], WORD.as_pointer())
        return builder.load_atomic(pointer, 'acquire', 8)

    return types.int64(types.int64), build


@intrinsic
@no_type_check
def _allocate(typing_context, size):
    def build(context, builder, signature, values):
        kind = ir.FunctionType(ir.IntType(8).as_pointer(), [WORD])
        malloc = cgutils.get_or_insert_function(builder.module, kind, 'malloc')
        return builder.ptrtoint(builder.call(malloc, values), WORD)

    return types.int64(types.int64), build


@intrinsic
@no_type_check
def _free(typing_context, address):
    def build(context, builder, signature, values):
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer])
        free = cgutils.get_or_insert_function(builder.module, kind, 'free')
        builder.call(free, [builder.inttoptr(values[0], pointer)])
        return context.get_dummy_value()

    return types.void(types.int64), build


@intrinsic
@no_type_check
def _yield(typing_context):
    """Let another thread that is ready run on this core."""

    def build(context, builder, signature, values):
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, 'sched_yield'), [])
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
@no_type_check
def _call(typing_context, function, arguments):
    """Call a function of XLA's interface: (address of its arguments) -> address of an error, or 0."""

    def build(context, builder, signature, values):
        kind = ir.FunctionType(WORD, [WORD])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), [values[1]])

    return types.int64(types.int64, types.int64), build


def api_positions() -> tuple[int, ...]:
    """Positions of the functions used here in XLA's table of functions, in words; 0 where it lacks one.

    The last number is of the sources of this module and of the frame: handlers have these numbers in their closure, and
    numba's cache compares those, but not the modules that a handler imports.
    """
    here = pathlib.Path(__file__)
    source = zlib.crc32(here.read_bytes() + here.with_name('_ffi_frame.py').read_bytes())
    names = ('Error_Destroy', 'ThreadPool_Schedule', 'ThreadPool_NumThreads')
    header = pathlib.Path(jax.ffi.include_dir(), 'xla', 'ffi', 'api', 'c_api.h').read_text()
    fields = re.findall(r'^  _XLA_FFI_API_STRUCT_FIELD\(XLA_FFI_(\w+)\);', header, re.MULTILINE)
    if not set(names) <= set(fields):
        return 0, 0, 0, source
    first = 6  # after the size, the extension, a version of three words, and a pointer
    return *(first + fields.index(name) for name in names), source


@njit
@no_type_check
def _succeeds(api, positions, position, arguments):
    """Call a function of XLA's table; an error is destroyed."""
    table = ffi.words(api, 64)
    error = _call(table[position], arguments)
    if error == 0:
        return True
    destroyed = _allocate(24)
    fields = ffi.words(destroyed, 3)
    fields[0], fields[1], fields[2] = 24, 0, error
    _call(table[positions[0]], destroyed)
    _free(destroyed)
    return False


@njit
@no_type_check
def _num_threads(api, positions, context):
    arguments = _allocate(40)
    fields = ffi.words(arguments, 5)
    fields[0], fields[1], fields[2], fields[3], fields[4] = 32, 0, context, arguments + 32, 1
    n = fields[4] if _succeeds(api, positions, positions[2], arguments) else 1
    _free(arguments)
    return n


@njit
@no_type_check
def _schedule(api, positions, context, task, job):
    arguments = _allocate(40)
    fields = ffi.words(arguments, 5)
    fields[0], fields[1], fields[2], fields[3], fields[4] = 40, 0, context, task, job
    done = _succeeds(api, positions, positions[1], arguments)
    _free(arguments)
    return done


def parallel(work: Callable[[int, int], None]) -> Callable[..., Any]:
    """A function that divides work over XLA's threads.

    Args:
      work: (address of the payload, part), compiled by numba; parts must not write the same memory.

    Returns:
      (address of the call frame, `api_positions`, number of parts, payload as a tuple of int64), which returns when all
      parts are done.
    """

    @njit
    @no_type_check
    def do_parts(job):
        shared = ffi.words(job, PAYLOAD)
        while True:
            part = _add(job + 8 * NEXT, 1)
            if part >= shared[PARTS]:
                return
            work(job + 8 * PAYLOAD, part)
            _add(job + 8 * FINISHED, 1)

    @njit
    @no_type_check
    def leave(job):
        if _add(job + 8 * REFERENCES, -1) == 1:
            _free(job)

    @no_type_check
    def task(job):
        do_parts(job)
        leave(job)

    @intrinsic
    @no_type_check
    def task_address(typing_context):
        def build(context, builder, signature, values):
            kind = ir.FunctionType(ir.VoidType(), [WORD])
            name = f'{builder.function.name}.task'
            function = ir.Function(builder.module, kind, name)
            function.linkage = 'internal'
            inner = ir.IRBuilder(function.append_basic_block())
            of_task = typing.signature(types.none, types.int64)
            compiled = context.compile_subroutine(inner, task, of_task)
            context.call_internal_no_propagate(inner, compiled.fndesc, of_task, function.args)
            inner.ret_void()
            return builder.ptrtoint(function, WORD)

        return types.int64(), build

    @njit
    @no_type_check
    def run(frame, positions, n_parts, payload):
        head = ffi.words(frame, 4)
        api, context, n_tasks = head[2], head[3], 0
        if positions[0] and n_parts > 1:
            n_tasks = min(_num_threads(api, positions, context), n_parts) - 1
        job = _allocate(8 * (PAYLOAD + len(payload)))
        shared = ffi.words(job, PAYLOAD + len(payload))
        shared[REFERENCES], shared[NEXT], shared[PARTS], shared[FINISHED] = (
            n_tasks + 1,
            0,
            n_parts,
            0,
        )
        for i in range(len(payload)):
            shared[PAYLOAD + i] = payload[i]
        for _ in range(n_tasks):
            if not _schedule(api, positions, context, task_address(), job):
                leave(job)
        do_parts(job)
        while _read(job + 8 * FINISHED) < n_parts:
            _yield()
        leave(job)

    return run
