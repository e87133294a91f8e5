"""What pyarrow raises on Parquet files that are damaged, or no Parquet files at all."""

from __future__ import annotations


def parquet_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Returns the exceptions of reading a damaged Parquet file, and others that the caller treats in the same way.

    OSError is not among them, since a block that also writes may raise it. A column whose name is not UTF-8 raises
    UnicodeDecodeError, although that is no exception of pyarrow's own.
    """
    import pyarrow as pa

    return (*others, pa.ArrowException, EOFError, UnicodeDecodeError)
