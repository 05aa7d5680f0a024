"""A loop over items on the threads of XLA's pool, for handlers of its foreign-function interface compiled by numba.

The caller and the tasks that it schedules take one item after the other until none is left, and the caller waits for
those that others have begun. So no thread waits for one that has not begun, and the pool may be busy, or the caller one
of its threads. A task may begin after the call has ended: the words that they share belong to all, and the last frees
them. A handler calls `share`, `schedule`, takes items itself, and calls `finish`. A task, a C function of the address
of the shared words, takes items from `next_item` until that is -1, and calls `release`.
"""

# The first parameter of an intrinsic is not an argument of its calls.
# pyright: reportCallIssue=false

from typing import no_type_check

import numpy as np
from llvmlite import ir  # pyright: ignore[reportMissingImports]
from numba import njit, types  # pyright: ignore[reportMissingImports]
from numba.extending import intrinsic  # pyright: ignore[reportMissingImports]

from lecture4.ops._ffi_frame import address_of, call, words

NEXT, DONE, OWNERS, COUNT, USER = range(5)  # words that are shared; from USER on, the handler's
_malloc = types.ExternalFunction('malloc', types.int64(types.int64))
_free = types.ExternalFunction('free', types.void(types.int64))
_yield = types.ExternalFunction('sched_yield', types.int32())


@intrinsic
@no_type_check
def _fetch_add(typing_context, address, amount):
    def build(context, builder, signature, values):
        word = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw('add', word, values[1], 'seq_cst')

    return types.int64(types.int64, types.int64), build


@njit
@no_type_check
def share(count, n_words):
    """The address of shared words for a loop over `count` items, with `n_words` of the handler's, all zero."""
    address = _malloc(8 * (USER + n_words))
    state = words(address, USER + n_words)
    state[:] = 0
    state[COUNT], state[OWNERS] = count, 1
    return address


@njit
@no_type_check
def schedule(frame, address, task):
    """Start the task, a C function at an address, on as many threads as there are cores and items for."""
    api, request = words(frame[2], 19), np.zeros(6, np.int64)
    request[:4] = 32, 0, frame[3], address_of(request) + 8 * 5
    if call(api[18], address_of(request)):  # XLA_FFI_ThreadPool_NumThreads
        return 0
    n_tasks = min(request[5], words(address, USER)[COUNT]) - 1
    request[:5] = 40, 0, frame[3], task, address
    for _ in range(n_tasks):
        _fetch_add(address + 8 * OWNERS, 1)
        if call(api[17], address_of(request)):  # XLA_FFI_ThreadPool_Schedule
            _fetch_add(address + 8 * OWNERS, -1)
    return request[0]  # a use of the request, which must outlive its address


@njit
@no_type_check
def next_item(address, is_first):
    """An item that no other thread has, after the previous one is done; -1 if there is none left."""
    if not is_first:
        _fetch_add(address + 8 * DONE, 1)
    i = _fetch_add(address + 8 * NEXT, 1)
    return i if i < words(address, USER)[COUNT] else -1


@njit
@no_type_check
def release(address):
    """Leave the shared words to the other threads."""
    if _fetch_add(address + 8 * OWNERS, -1) == 1:
        _free(address)


@njit
@no_type_check
def finish(address):
    """Wait until all items are done, and release the shared words."""
    while _fetch_add(address + 8 * DONE, 0) < words(address, USER)[COUNT]:
        _yield()
    release(address)
