"""Which files a folder of labelled data holds, and what each is labelled."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_converter.errors import DataError
from edge_converter.labelled.samples import Integers

LABELS_FILE = "labels.csv"
_TABLE = "a table in UTF-8, its columns separated by commas, whose first line is file,label"


def labelled_files(path: Path) -> list[tuple[Path, str]]:
    """Files and labels, from `labels.csv` or from the sub-folder each lies in.

    Raises:
        DataError: There is neither, a file is not there, or a sub-folder is empty.
    """
    table = path / LABELS_FILE
    return _from_table(table) if table.is_file() else _from_folders(path)


def class_numbers(labels: Sequence[str]) -> tuple[tuple[str, ...], Integers]:
    """Names and numbers of classes: numbers stand for themselves, names for their place in the alphabet."""
    if all(label.isascii() and label.isdigit() and len(label) <= len(str(2**31)) for label in labels):
        return (), np.array([int(label) for label in labels], np.int64)
    names = tuple(sorted(set(labels)))
    number = {name: index for index, name in enumerate(names)}
    return names, np.array([number[label] for label in labels], np.int64)


def digest(file: Path) -> bytes:
    """The SHA-256 of a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with file.open("rb") as stream:
            found = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                found.update(chunk)
            return found.digest()
    except OSError as cause:
        raise DataError(f"cannot be read: {cause.strerror}", where=str(file)) from cause


def _from_table(table: Path) -> list[tuple[Path, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise DataError(f"cannot be read: {cause}", where=str(table), hint=_TABLE) from cause
    if not lines or [cell.strip() for cell in lines[0]] != ["file", "label"]:
        raise DataError("does not begin with the header file,label", where=str(table), hint=_TABLE)
    labelled = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        if len(line) != 2 or not line[1].strip():  # noqa: PLR2004 - file and label
            raise DataError(f"line {number} is not file,label", where=str(table))
        file = table.parent / line[0].strip()
        if not _is_file(file):
            raise DataError(f"line {number} names {line[0].strip()[:80]!r}, which is not there", where=str(table))
        labelled.append((file, line[1].strip()))
    return labelled


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _from_folders(path: Path) -> list[tuple[Path, str]]:
    labelled: list[tuple[Path, str]] = []
    for folder in sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")):
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
        if not files:
            raise DataError(f"class folder {folder.name!r} holds no file", where=str(path), hint="fill it or remove it")
        labelled += [(file, folder.name) for file in files]
    if not labelled:
        raise DataError(
            "holds neither labels.csv nor a sub-folder with images a class",
            where=str(path),
            hint="labels.csv has the header file,label; .wav files, and boxes in annotations.json, work too",
        )
    return labelled
