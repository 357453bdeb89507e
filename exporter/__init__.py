"""Prometheus exporter for the readiness of VoiceLink numbers (DIDs) behind Vocobase voice agents."""

__version__ = "0.1.0"
