"""What an archive of files (zip, tar) holds, member by member, each checked before anything is written.

An archive comes from elsewhere, so it is taken for hostile: only plain files and folders are let through whose paths
lead down, every byte is counted as it comes, and what the standard library overlooks in a damaged tar is said.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from rsbook.scenes import DataError

DEFLATE_MOST = 1032  # times: deflate cannot do more, so who claims more lies
HEADER_MOST = 2**20  # bytes of a tar's long names and attributes, which tarfile holds in memory
IN_MEMORY = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
LOCAL_HEADER = 30  # bytes before the name and the content of a zip's member
LONGEST, DEEPEST = 255, 32  # bytes of a name, parts of a path
PIECE = 2**20  # bytes written at once
BUFFER = 2**16  # bytes of a tar read at once: tarfile copies what is left of them at every header
GIGABYTE = 1e9
CURE = "get it again from its publisher, or unpack it yourself if you trust it"

Found = tuple[str, int, bool, Callable[[], IO[bytes]]]  # the first and the last three of a Member, not yet checked


def _open_zstd(path: Path) -> IO[bytes]:
    import pyarrow  # the standard library has no Zstandard before Python 3.14

    return pyarrow.input_stream(str(path), compression="zstd")


STREAMS = {  # how the tar inside is read, a piece at a time
    ".tar": partial(open, mode="rb"),
    **dict.fromkeys((".tar.gz", ".tgz"), gzip.open),
    **dict.fromkeys((".tar.bz2", ".tbz2"), bz2.open),
    **dict.fromkeys((".tar.xz", ".txz"), lzma.open),
    ".tar.zst": _open_zstd,
}
KINDS = (".zip", *STREAMS)


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive that may be written below the target: its parts, bytes, and how to read it."""

    name: str
    parts: tuple[str, ...]
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes]]


def kind(path: Path) -> str | None:
    """How the archive is packed, by the end of its name, such as ".tar.gz"; None for what is hidden or no archive."""
    name = path.name.lower()
    return None if name.startswith(".") else next((end for end in KINDS if name.endswith(end)), None)


def members(path: Path, room: Room) -> Iterator[Member]:
    """The members of an archive in its order, each checked as it comes.

    Raises DataError for one that may not be written or an archive of no known kind, and what the standard library
    raises for a damaged one.
    """
    ending = kind(path)
    if ending is None:
        raise DataError(f"{path} is no archive that can be unpacked here, expected one of {', '.join(KINDS)}: {CURE}")
    if path.with_suffix(".z01").exists():
        raise DataError(f"{path} is one part of several: join them first, as with `zip -s 0 {path.name} --out all.zip`")
    for name, size, is_folder, open_ in (_zip_members if ending == ".zip" else _tar_members)(path, room):
        if fault := name_fault(name, is_folder):
            raise refusal(path, name, fault)
        yield Member(name, PurePosixPath(name).parts, size, is_folder, open_)


def name_fault(name: str, is_folder: bool) -> str:
    """What keeps a member's name from being a path below the target, in a few words; empty for a good name."""
    parts = PurePosixPath(name).parts
    if not parts and not is_folder:
        return "has no name"
    if name.startswith("/") or "\\" in name or PureWindowsPath(name).drive:
        return "has an absolute path or one of Windows"
    if ".." in parts:
        return "leads out of its folder (..)"
    if not name.isprintable():
        return "has a name with unprintable characters"
    if len(parts) > DEEPEST or any(len(os.fsencode(part)) > LONGEST for part in parts):
        return f"has a name over {LONGEST} bytes or lies over {DEEPEST} folders deep"
    return ""


class Room:
    """How many bytes may still come out of an archive; more than that raises DataError with the reason `why`."""

    def __init__(self, path: Path, limit: int, why: str) -> None:
        self.path, self.limit, self.left, self.why = path, limit, limit, why

    def check(self, size: int) -> None:
        """Refuse what says of itself that it has more bytes than may still come."""
        if size > self.left:
            raise DataError(f"{self.path} holds more than {max(self.limit, 0) / GIGABYTE:,.3f} GB, {self.why}")

    def take(self, size: int) -> None:
        """Count bytes that have come."""
        self.check(size)
        self.left -= size


class Metered:
    """A stream whose bytes are counted as they are read."""

    def __init__(self, stream: IO[bytes], room: Room) -> None:
        self.stream, self.room = stream, room

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`."""
        piece = self.stream.read(size)
        self.room.take(len(piece))
        return piece

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()


def _zip_members(path: Path, room: Room) -> Iterator[Found]:
    with zipfile.ZipFile(path) as archive:
        listed = archive.infolist()
        for entry in listed:
            if fault := _zip_fault(entry):
                raise refusal(path, entry.orig_filename, fault)
        if not _apart(listed, archive.start_dir):
            raise DataError(f"{path} has members that lie upon each other, as in a bomb: {CURE}")
        room.check(sum(entry.file_size for entry in listed))
        for entry in listed:  # its original name is what stands in the file: zipfile cuts the other at a null byte
            name = entry.orig_filename
            yield name, entry.file_size, name.endswith("/"), lambda entry=entry: Metered(archive.open(entry), room)


def _zip_fault(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may unpack to any size at once
        return f"is packed by method {entry.compress_type}, expected none or deflate"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if entry.file_size > DEFLATE_MOST * entry.compress_size + PIECE:
        return f"claims to be over {DEFLATE_MOST} times as large as it is packed"
    return ""


def _apart(entries: list[zipfile.ZipInfo], end: int) -> bool:
    """Whether no member of a zip begins before the one in front of it, or the list of all, has ended."""
    spans = sorted((e.header_offset, e.header_offset + LOCAL_HEADER + e.compress_size) for e in entries)
    starts = [start for start, _ in spans[1:]] + [end]
    return all(stop <= start for (_, stop), start in zip(spans, starts, strict=False))


class _Header(tarfile.TarInfo):
    """A header of a tar that says when it is damaged: tarfile takes whatever it cannot read for the end."""

    @classmethod
    def frombuf(cls, *given: Any) -> tarfile.TarInfo:
        header = super().frombuf(*given)
        if header.type in IN_MEMORY and header.size > HEADER_MOST:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return _not_negative(header)

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            header = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # the block of zeros at the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from error
        return _not_negative(header)


def _not_negative(header: tarfile.TarInfo) -> tarfile.TarInfo:
    if header.size < 0:  # tarfile would go back, and round in circles
        raise tarfile.ReadError(f"a member of {header.size} bytes")
    return header


def _tar_members(path: Path, room: Room) -> Iterator[Found]:
    with closing(Metered(STREAMS[kind(path)](path), room)) as stream:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BUFFER, tarinfo=_Header) as archive:
            while (header := archive.next()) is not None:
                archive.members.clear()  # it would keep them all, and there may be millions
                if not (header.isreg() or header.isdir()) or header.issparse():
                    raise refusal(path, header.name, "is a link, device or another kind of file")
                room.check(header.size)
                yield header.name, header.size, header.isdir(), partial(archive.extractfile, header)
        while stream.read(PIECE):  # to the very end, where a checksum may stand
            pass


def refusal(path: Path, name: str, fault: str) -> DataError:
    """The error that says what is wrong with a member of an archive, which may have any name."""
    shown = repr(name if len(name) <= LONGEST else f"{name[:LONGEST]}…")
    return DataError(f"{path} is refused: its member {shown} {fault}; expected plain files and folders: {CURE}")
