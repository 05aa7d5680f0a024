"""Data sets by name: `sources.load('textures')`, `sources.load('mnist')`, `sources.load('dir:PATH')`."""

from lecture4.data.sources.registry import PHOTOS as PHOTOS
from lecture4.data.sources.registry import TEXTURES as TEXTURES
from lecture4.data.sources.registry import load as load
