"""The configuration: its schema, where it comes from, and what is said when it is wrong."""

from exporter.config.load import Settings, environment_names, load_settings, suspicious
from exporter.config.schema import Account, Config, ConfiguredDid
from exporter.config.values import (
    Address,
    UnixAddress,
    format_duration,
    parse_address,
    parse_duration,
    parse_listen_address,
)
from exporter.config.web_file import WebFile, load_web_file

__all__ = [
    "Account",
    "Address",
    "Config",
    "ConfiguredDid",
    "Settings",
    "UnixAddress",
    "WebFile",
    "environment_names",
    "format_duration",
    "load_settings",
    "load_web_file",
    "parse_address",
    "parse_duration",
    "parse_listen_address",
    "suspicious",
]
