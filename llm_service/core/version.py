"""The version of this service."""

__version__ = "0.1.0"
