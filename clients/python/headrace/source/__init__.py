"""Sources of a stream's content: files, rows, tables, each split into chunks.

A file named by its path is read again from wherever the server stands. Everything
else can be read once: its chunks are kept until the server has acknowledged them.
Tables take pyarrow, so whoever has one imports `headrace.source.table`.
"""

from headrace.source.capsule import ArrowData
from headrace.source.chunk import BATCH_BYTES, CHUNK_BYTES, Chunk, Source, Start
from headrace.source.file import Compression, File, FileSource, StreamSource, file_source, opened
from headrace.source.rows import Rows, RowSource

__all__ = [
    "BATCH_BYTES",
    "CHUNK_BYTES",
    "ArrowData",
    "Chunk",
    "Compression",
    "File",
    "FileSource",
    "RowSource",
    "Rows",
    "Source",
    "Start",
    "StreamSource",
    "file_source",
    "opened",
]
