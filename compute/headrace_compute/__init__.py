"""What Headrace's workers run: ingest, features, training data, and what these stand on. Knows no gRPC."""

from importlib.metadata import version

__version__ = version("headrace-compute")
