"""The trials of a race as a table for other tools: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

from thalweg.race.store import Store, StoreError


def export(store: Store, path: str | Path) -> Path:
    """Write every trial as one row; hyperparameters become columns `hyper.NAME`, the curve stays JSON text.

    Args:
        store: the race.
        path: ends in `.csv` or `.parquet`.

    Raises:
        StoreError: another ending, no such folder, or pyarrow is missing.
    """
    target = Path(path)
    if target.suffix not in (".csv", ".parquet"):
        raise StoreError(f"{target}: an export is a .csv or a .parquet file; give it one of these endings.")
    if not target.parent.is_dir():
        raise StoreError(f"{target}: the folder {target.parent} does not exist; make it first.")
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        (_csv if target.suffix == ".csv" else _parquet)(store, temporary)
        temporary.chmod(0o644)
        return temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _csv(store: Store, path: Path) -> None:
    rows = store.rows()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["key"])
        writer.writeheader()
        writer.writerows(rows)


def _parquet(store: Store, path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise StoreError('Parquet needs pyarrow: `pip install "thalweg[parquet]"`, or export to a .csv file instead.') from error
    rows = store.rows()
    for name in rows[0] if rows else {}:  # a column has one type: what is a number here and a word there becomes text
        kinds = {type(row[name]) for row in rows if row[name] is not None}
        if len(kinds) > 1:
            kind = float if kinds == {int, float} else str
            for row in rows:
                row[name] = None if row[name] is None else kind(row[name])
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
