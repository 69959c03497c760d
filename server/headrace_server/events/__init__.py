"""Events: publishes what commits made visible."""
