"""Formats: reads untrusted bytes safely: CSV headers, Arrow, Parquet, compression, records."""
