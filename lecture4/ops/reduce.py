"""Statistics over the devices of a mapped axis (pmap, shard_map), through one argument.

Under `jax.jit` over a mesh a mean over the batch already is a mean over all devices, and the
default `Reduce()` does nothing; with the mesh, `all_gather` places its result on all devices. Under
pmap or shard_map each device has its part of the batch, and `Reduce('data')` combines the results of the parts.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar('Tree')


class Reduce(NamedTuple):
    """Collectives over a named axis of devices; without a name each of them is the identity.

    Attributes:
      axis_name: Name of the mapped axis, or None if every device has the whole batch.
      mesh: Under `jax.jit`, the mesh over which the batch is divided; None leaves all placement to the compiler.
    """

    axis_name: str | None = None
    mesh: Mesh | None = None

    def mean(self, tree: Tree) -> Tree:
        """Mean over the devices of every leaf."""
        return tree if self.axis_name is None else lax.pmean(tree, self.axis_name)

    def sum(self, tree: Tree) -> Tree:
        """Sum over the devices of every leaf."""
        return tree if self.axis_name is None else lax.psum(tree, self.axis_name)

    def max(self, tree: Tree) -> Tree:
        """Elementwise maximum over the devices of every leaf."""
        return tree if self.axis_name is None else lax.pmax(tree, self.axis_name)

    def vary(self, tree: Tree) -> Tree:
        """The same values as a separate copy on each device, with respect to which gradients can be taken.

        With respect to a value that shard_map knows to be equal on all devices, the gradient is
        already summed over the devices, and its mean is too large by their number.
        """
        if self.axis_name is None:
            return tree
        is_device = lax.axis_index(self.axis_name) >= 0
        return jax.tree.map(lambda leaf: jnp.where(is_device, leaf, leaf), tree)

    def all_gather(self, tree: Tree) -> Tree:
        """The rows (leading axis) of all devices, in the order of the devices; on every device.

        Computed as a sum of zeros and rows, because shard_map knows that a sum is the same on all devices.
        """
        if self.mesh is not None:
            return lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec()))
        if self.axis_name is None:
            return tree
        index = lax.axis_index(self.axis_name)

        def gather(rows):
            slots = jnp.zeros((self.num_devices, *rows.shape), rows.dtype)
            return lax.psum(slots.at[index].set(rows), self.axis_name).reshape(-1, *rows.shape[1:])

        return jax.tree.map(gather, tree)

    def fold_in(self, key: jax.Array) -> jax.Array:
        """A different random key for each device."""
        if self.axis_name is None:
            return key
        return jax.random.fold_in(key, lax.axis_index(self.axis_name))

    @property
    def num_devices(self) -> int:
        """Number of devices along the axis."""
        return 1 if self.axis_name is None else lax.psum(1, self.axis_name)
