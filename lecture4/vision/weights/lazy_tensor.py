"""Tensors of PyTorch as views of storages, checked before anything is allocated."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped


class Storage:
    """Values of one type, known by reference until they are read.

    Attributes:
      dtype: Of the values.
      values: [n], or None.
    """

    def __init__(self, dtype: Any, values: Shaped[np.ndarray, 'n'] | None = None) -> None:
        self.dtype, self.values = np.dtype(dtype), values


class LazyTensor(NamedTuple):
    """A tensor as a view of a storage, which may not have its values yet.

    Attributes:
      storage: Holds the values.
      offset: Of the first value, in values.
      size: Shape of the tensor.
      stride: In values, one per axis.
      dtype: Of the tensor where the storage is untyped, else None.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: Any = None

    def array(self) -> Shaped[np.ndarray, '*size']:
        """The values, a read-only view: a stride of 0 takes no memory.

        Raises:
          ValueError: The tensor does not lie in its storage.
        """
        values = self.storage.values
        if values is None:
            raise ValueError('a tensor has no storage')
        if self.dtype is not None:
            values = values.view(self.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if min((*self.size, *self.stride, self.offset), default=0) < 0:
            raise ValueError('a tensor has a negative size, stride or offset')
        if 0 not in self.size and last >= len(values):
            raise ValueError(f'a tensor needs {last + 1} values, its storage has {len(values)}')
        if math.prod(self.size) * values.itemsize >= 2**63:
            raise ValueError(f'a tensor has size {self.size}')
        strides = [s * values.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.size, strides, writeable=False
        )
