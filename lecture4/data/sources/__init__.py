"""Data sets by name: `sources.load('textures')`, `sources.load('mnist')`, `sources.load('dir:PATH')`."""

from lecture4.data.dataset import DataError as DataError
from lecture4.data.dataset import Dataset as Dataset
from lecture4.data.sources.registry import load as load
