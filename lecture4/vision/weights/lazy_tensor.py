"""Tensors of PyTorch as views of storages, checked before anything is allocated."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped


class Storage:
    """Values of one type, referenced until they are read.

    Attributes:
      dtype: Dtype of the values.
      values: [n], or None.
    """

    def __init__(self, dtype: Any, values: Shaped[np.ndarray, 'n'] | None = None) -> None:
        self.dtype, self.values = np.dtype(dtype), values


class LazyTensor(NamedTuple):
    """A tensor as a view of a storage, whose values may not have been read yet.

    Attributes:
      storage: Storage of the values.
      offset: Offset of the first value, in values.
      size: Shape of the tensor.
      stride: Strides in values, one per axis.
      dtype: Dtype of the tensor where the storage is untyped, else None.
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
        dtype = values.dtype if self.dtype is None else np.dtype(self.dtype)
        n_values = values.nbytes // dtype.itemsize
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if min((*self.size, *self.stride, self.offset), default=0) < 0:
            raise ValueError('a tensor has a negative size, stride or offset')
        if 0 not in self.size and last >= n_values:
            raise ValueError(f'a tensor needs {last + 1} values, its storage has {n_values}')
        if math.prod(self.size) * dtype.itemsize >= 2**63:
            raise ValueError(f'a tensor has size {self.size}')
        if 0 in self.size:
            return np.zeros(self.size, dtype)
        strides = [s * dtype.itemsize for s in self.stride]
        data = values.view(np.uint8)
        return np.ndarray(self.size, dtype, data, self.offset * dtype.itemsize, strides)
