"""The command line."""

from exporter.cli.main import main

__all__ = ["main"]
