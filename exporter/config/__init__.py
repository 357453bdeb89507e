"""The configuration: its schema, where it comes from, and what is said when it is wrong."""

from exporter.config.load import Settings, environment_names, load_settings
from exporter.config.schema import Account, Config, ConfiguredDid
from exporter.config.values import Address, format_duration, parse_address, parse_duration

__all__ = [
    "Account",
    "Address",
    "Config",
    "ConfiguredDid",
    "Settings",
    "environment_names",
    "format_duration",
    "load_settings",
    "parse_address",
    "parse_duration",
]
