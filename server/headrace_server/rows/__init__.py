"""Rows on their way to the workers: what uploads, validation and small ingests share."""
