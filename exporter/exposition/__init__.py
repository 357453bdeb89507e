"""The fleet as Prometheus reads it: rendered when something changes, served as bytes."""

from exporter.exposition.body import Body
from exporter.exposition.families import FAMILIES, Family
from exporter.exposition.render import Exposition

__all__ = ["FAMILIES", "Body", "Exposition", "Family"]
