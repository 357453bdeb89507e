"""The configuration: its schema, where it comes from, and what is said when it is wrong."""

from exporter.config.load import Settings, environment_names, load_settings, suspicious
from exporter.config.schema import Account, Config, ConfiguredDid
from exporter.config.values import format_duration, parse_duration

__all__ = [
    "Account",
    "Config",
    "ConfiguredDid",
    "Settings",
    "environment_names",
    "format_duration",
    "load_settings",
    "parse_duration",
    "suspicious",
]
