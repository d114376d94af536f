"""Archives as publishers ship them are unpacked whole; hostile and damaged ones write nothing anywhere, and say why."""

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import hypothesis
import make_archives_aid
import make_archives_bigearthnet
import make_archives_treesatai
import make_archives_voc
import numpy as np
import pyarrow
import pytest
from hypothesis import strategies as st

from rsbook import cli, preparing, scenes, unpacking
from rsbook.scenes import DataError

PACK = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".tar.zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}


@pytest.fixture
def place(tmp_path):
    """A folder with a file that is none of the archive's business, and an older folder where it will be unpacked."""
    (tmp_path / "outside.txt").write_text("as it was")
    (tmp_path / "place" / "target" / "older").mkdir(parents=True)
    (tmp_path / "place" / "target" / "older" / "file.txt").write_text("older")
    return tmp_path / "place"


def snapshot(folder):
    """Everything below a folder: kind, content and where links lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        content = path.read_bytes() if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else None
        found[str(path.relative_to(folder))] = (kind, content)
    return found


def tree(folder):
    """The files below a folder, and its folders as None."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}


def write_tree(folder, files):
    for name, content in files.items():
        path = folder / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)


# Making archives


def header(name, content=b"", **changes):
    """A member of a tar and its content."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in changes.items():
        setattr(info, field, value)
    return info, content


def link(name, where, kind=tarfile.SYMTYPE):
    return header(name, type=kind, linkname=where)


def tar_of(*found, form=tarfile.PAX_FORMAT, end=True):
    """The bytes of a tar; what stands in it need not be true."""
    file = io.BytesIO()
    for info, content in found:
        file.write(info.tobuf(form))
        file.write(content + bytes(-len(content) % 512))
    return file.getvalue() + bytes(1024 if end else 0)


def zip_of(*found, method=zipfile.ZIP_DEFLATED):
    """The bytes of a zip of (name, content) or (name, content, mode)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content, *mode in found:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.compress_type = method
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return file.getvalue()


def patched(content, where, *, local=None, central=None, entry=0):
    """A zip with bytes of one member's two headers replaced, each counted from the header's beginning."""
    content = bytearray(content)
    for at, signature, value in ((where[0], b"PK\3\4", local), (where[1], b"PK\1\2", central)):
        start = -1
        for _ in range(entry + 1):
            start = content.index(signature, start + 1)
        if value is not None:
            content[start + at : start + at + len(value)] = value
    return bytes(content)


FLAGS, SIZES = (6, 8), (22, 24)  # where they stand in a member's own header and in the list at the end


def overlapping():
    """Two entries of the list that mean the same bytes."""
    content = zip_of(("a", b"x" * 100), ("a", b"x" * 100))
    return patched(content, (0, 42), central=struct.pack("<L", 0), entry=1)


def quoting():
    """A member whose content reaches over the next member's header and content."""
    content = zip_of(("a", os.urandom(50)), ("b", os.urandom(50)), method=zipfile.ZIP_STORED)
    longer = struct.pack("<LL", 50 + 31 + 50, 50 + 31 + 50)
    return patched(content, (18, 20), local=longer, central=longer)


ABSOLUTE = f"{tempfile.gettempdir()}/rsbook-outside-{os.getpid()}.txt"
ATTACKS = {  # the end of the archive's name, its content, what is said
    "tar absolute path": (".tar", tar_of(header(ABSOLUTE, b"evil")), "absolute path"),
    "tar ..": (".tar.gz", tar_of(header("../../outside.txt", b"evil")), r"leads out of its folder \(\.\.\)"),
    "tar .. inside": (".tar", tar_of(header("a/b/../../../x", b"evil")), r"\(\.\.\)"),
    "tar folder ..": (".tar", tar_of(header("../new/", type=tarfile.DIRTYPE)), r"\(\.\.\)"),
    "tar backslash": (".tar", tar_of(header("..\\..\\outside.txt", b"evil")), "one of Windows"),
    "tar drive": (".tar", tar_of(header("C:/x", b"evil")), "one of Windows"),
    "tar symlink out": (".tar", tar_of(link("a", "../../outside.txt")), "is a link, device"),
    "tar symlink in": (".tar", tar_of(header("b", b"x"), link("a", "b")), "'a' is a link, device"),
    "tar through a symlink": (
        ".tar.xz",
        tar_of(link("a", "../.."), header("a/outside.txt", b"evil")),
        "'a' is a link, device",
    ),
    "tar symlink overwritten": (".tar", tar_of(link("a", ABSOLUTE), header("a", b"evil")), "'a' is a link"),
    "tar hard link": (".tar", tar_of(link("a", "../../outside.txt", tarfile.LNKTYPE)), "is a link, device"),
    "tar device": (".tar", tar_of(header("a", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), "is a link, device"),
    "tar disk": (".tar", tar_of(header("a", type=tarfile.BLKTYPE, devmajor=8)), "is a link, device"),
    "tar fifo": (".tar.bz2", tar_of(header("ok", b"ok"), header("a", type=tarfile.FIFOTYPE)), "'a' is a link, device"),
    "tar sparse": (
        ".tar",
        tar_of(header("a", pax_headers={"GNU.sparse.map": "0,1,99999999,1", "GNU.sparse.size": "100000000"})),
        "is a link, device or another kind",
    ),
    "tar null byte": (".tar", tar_of(header("a", b"x", pax_headers={"path": "a\0b"})), "unprintable"),
    "tar escape codes": (".tar", tar_of(header("a\x1b[2J", b"x")), "unprintable"),
    "tar bad encoding": (".tar", tar_of(header("a\udcff", b"x"), form=tarfile.GNU_FORMAT), "unprintable"),
    "tar long name": (".tar", tar_of(header("n" * 300, b"x")), "name over 255 bytes"),
    "tar deep": (".tar", tar_of(header("d/" * 40 + "x", b"x")), "over 32 folders deep"),
    "tar no name": (".tar", tar_of(header(".", b"x")), "has no name"),
    "tar twice": (".tar", tar_of(header("a", b"1"), header("./a", b"2")), "'./a' is there twice"),
    "tar file as folder": (".tar", tar_of(header("a", b"1"), header("a/b", b"2")), "as a file and a folder"),
    "tar folder as file": (".tar", tar_of(header("a/b", b"1"), header("a", b"2")), "as a file and a folder"),
    "tar bomb": (".tar.gz", tar_of(header("a", bytes(10**7))), r"holds more than 0\.\d+ GB, over 250 times"),
    "tar bomb after its end": (".tar.xz", tar_of() + bytes(10**7), "over 250 times its own size"),
    "tar bomb of headers": (".tar.bz2", tar_of(*[header("d", type=tarfile.DIRTYPE)] * 5000), "over 250 times its own"),
    "tar large declared size": (".tar", tar_of(header("a", size=2**50)), "over 250 times its own size"),
    "tar negative size": (".tar", tar_of(header("a", size=-1024), form=tarfile.GNU_FORMAT), "damaged .* of -1024"),
    "tar negative size, pax": (".tar", tar_of(header("a", pax_headers={"size": "-1024"})), "damaged .* of -1024"),
    "tar huge attributes": (".tar", tar_of(header("a", size=2**30, type=tarfile.XHDTYPE)), "damaged .* of 1073741824"),
    "tar long names in memory": (
        ".tar",
        tar_of(header("a", size=2**31, type=tarfile.GNUTYPE_LONGNAME), form=tarfile.GNU_FORMAT),
        "damaged .*header of 2147483648 bytes",
    ),
    "tar cut between members": (".tar.gz", tar_of(header("a", b"x"), end=False), "is damaged"),
    "tar without content": (".tar.gz", tar_of(header("a", size=2000), end=False), "is damaged"),
    "tar overwritten": (
        ".tar",
        tar_of(header("a", b"x"), end=False) + b"\xff" * 512 + tar_of(header("b", b"x")),
        r"damaged \(bad checksum at byte 1024\)",
    ),
    "tar empty file": (".tar", b"", "is damaged"),
    "tar of noise": (".tar.gz", os.urandom(2000), "is damaged"),
    "zip absolute path": (".zip", zip_of((ABSOLUTE, b"evil")), "absolute path"),
    "zip ..": (".zip", zip_of(("../../outside.txt", b"evil")), r"leads out of its folder \(\.\.\)"),
    "zip folder ..": (".zip", zip_of(("../new/", b"", stat.S_IFDIR)), r"\(\.\.\)"),
    "zip backslash": (".zip", zip_of(("..\\..\\outside.txt", b"evil")), "one of Windows"),
    "zip drive": (".zip", zip_of(("C:x", b"evil")), "one of Windows"),
    "zip symlink": (".zip", zip_of(("a", b"../../outside.txt", stat.S_IFLNK | 0o777)), "is a link or device"),
    "zip through a symlink": (
        ".zip",
        zip_of(("a", b"../..", stat.S_IFLNK | 0o777), ("a/outside.txt", b"evil")),
        "'a' is a link or device",
    ),
    "zip fifo": (".zip", zip_of(("a", b"", stat.S_IFIFO)), "is a link or device"),
    "zip device": (".zip", zip_of(("a", b"", stat.S_IFCHR)), "is a link or device"),
    "zip null byte": (".zip", zip_of(("outside\0.txt", b"evil")), "unprintable"),
    "zip nothing but a null byte": (".zip", zip_of(("\0", b"evil")), "unprintable"),
    "zip long name": (".zip", zip_of(("n" * 300, b"x")), "name over 255 bytes"),
    "zip deep": (".zip", zip_of(("d/" * 40 + "x", b"x")), "over 32 folders deep"),
    "zip twice": (".zip", zip_of(("a", b"1"), ("./a", b"2")), "is there twice"),
    "zip file as folder": (".zip", zip_of(("a", b"1"), ("a/b", b"2")), "as a file and a folder"),
    "zip folder as file": (".zip", zip_of(("a/b", b"1"), ("a", b"2")), "as a file and a folder"),
    "zip encrypted": (".zip", patched(zip_of(("a", b"x" * 99)), FLAGS, local=b"\1", central=b"\1"), "is encrypted"),
    "zip bomb": (".zip", zip_of(("a", bytes(10**7))), "over 250 times its own size"),
    "zip bomb in pieces": (".zip", zip_of(*[(str(i), bytes(10**6)) for i in range(10)]), "over 250 times its own size"),
    "zip small declared size": (
        ".zip",
        patched(zip_of(("a", bytes(10**7))), SIZES, local=struct.pack("<L", 9), central=struct.pack("<L", 9)),
        "is damaged .*CRC",
    ),
    "zip small declared size and its checksum": (
        ".zip",
        patched(zip_of(("a", b"x" * 99)), (14, 16), local=bytes(4), central=bytes(4)),
        "is damaged .*CRC",
    ),
    "zip large declared size": (
        ".zip",
        patched(zip_of(("a", b"x" * 99)), SIZES, central=struct.pack("<L", 2**31)),
        "claims to be over 1032 times as large",
    ),
    "zip somewhat larger declared size": (
        ".zip",
        patched(zip_of(("a", b"x" * 99)), SIZES, central=struct.pack("<L", 999)),
        r"is damaged \('a' has 99 bytes, expected 999\)",
    ),
    "zip overlapping": (".zip", overlapping(), "lie upon each other, as in a bomb"),
    "zip quoting": (".zip", quoting(), "lie upon each other, as in a bomb"),
    "zip of another method": (".zip", zip_of(("a", b"x"), method=zipfile.ZIP_LZMA), "by method 14, expected none or"),
    "zip with two names": (".zip", patched(zip_of(("abc", b"x")), (30, 46), local=b"xyz"), "is damaged .*differ"),
    "zip truncated": (".zip", zip_of(("a", os.urandom(999)))[:500], "is damaged"),
    "zip empty file": (".zip", b"", "is damaged"),
    "zip of noise": (".zip", os.urandom(2000), "is damaged"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_archive_writes_nothing_and_says_why(place, monkeypatch, attack):
    monkeypatch.setattr(unpacking, "SLACK", 2**20)  # so that a bomb need not be large
    ending, content, message = ATTACKS[attack]
    path = place / f"archive{ending}"
    path.write_bytes(PACK.get(ending, bytes)(content))
    before = snapshot(place.parent)
    with pytest.raises(DataError, match=message) as error:
        unpacking.unpack(path, place / "target")
    assert str(error.value).startswith(str(path))
    assert str(error.value).isprintable()
    assert snapshot(place.parent) == before
    assert not os.path.lexists(ABSOLUTE)


def test_the_attacks_are_what_they_say(tmp_path):
    """Against a reader that trusts its archive these do harm, so the test above can fail."""
    done = {}
    for attack in ("tar ..", "tar through a symlink", "tar fifo"):
        folder = tmp_path / attack / "a" / "b"
        folder.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(ATTACKS[attack][1])) as archive:
            archive.extractall(folder, filter="fully_trusted")
        done[attack] = sorted(snapshot(tmp_path / attack))
    assert done == {
        "tar ..": ["a", "a/b", "outside.txt"],
        "tar through a symlink": ["a", "a/b", "a/b/a", "outside.txt"],
        "tar fifo": ["a", "a/b", "a/b/a", "a/b/ok"],
    }
    with tarfile.open(fileobj=io.BytesIO(ATTACKS["tar overwritten"][1])) as archive:
        assert archive.getnames() == ["a"]  # and nothing said of what was lost


def test_headers_are_not_taken_into_memory_however_large_they_claim_to_be(place):
    bomb = tar_of(header("a", bytes(2**26), type=tarfile.XHDTYPE), header("b", b"x"))
    (place / "bomb.tar.gz").write_bytes(gzip.compress(bomb))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"is damaged .*header of 67108864 bytes"):
        unpacking.unpack(place / "bomb.tar.gz", place / "target")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("ending", [*PACK, ".zip"])
def test_an_archive_cut_off_anywhere_or_with_a_flipped_bit_is_damaged(place, ending):
    rng = np.random.default_rng(0)
    files = {f"a/{i}": rng.bytes(700) for i in range(4)}
    whole = archive_of(files, ending)
    path, before = place / f"archive{ending}", snapshot(place)
    cuts = [whole[:at] for at in {0, 1, len(whole) - 1, *rng.integers(1, len(whole), 30).tolist()}]
    if ending == ".tar":  # without the zeros that fill its end, of which one block will do
        cuts = [cut for cut in cuts if len(cut) < len(whole.rstrip(b"\0"))]
    for cut in cuts:
        path.write_bytes(cut)
        with pytest.raises(DataError, match="is damaged"):
            unpacking.unpack(path, place / "target")
    flipped = 0
    for at in rng.integers(0, len(whole), 60).tolist():
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            unpacking.unpack(path, place / "target")
        except DataError:
            flipped += 1
            assert len(snapshot(place)) == len(before) + 1
        else:  # in what has no checksum, or no reader needs
            assert ending in (".tar", ".tar.zst") or tree(place / "target") == files | {"a": None}
            shutil.rmtree(place / "target")
            write_tree(place / "target", {"older/file.txt": b"older"})
    assert flipped >= {".tar": 5, ".tar.zst": 1}.get(ending, 30)
    path.unlink()
    assert snapshot(place) == before


# What is whole


def archive_of(files, ending):
    """The bytes of an archive, made by the standard library; None is a folder."""
    file = io.BytesIO()
    if ending == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name if content is not None else f"{name}/", content or b"")
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            info, _ = header(name, content or b"", type=tarfile.REGTYPE if content is not None else tarfile.DIRTYPE)
            archive.addfile(info, io.BytesIO(content or b""))
    return PACK[ending](file.getvalue())


NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12).filter(
    lambda name: not set(name) & set("/\\:") and name not in (".", "..")
)
TREES = st.dictionaries(
    NAMES,
    st.recursive(st.binary(max_size=2000), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8),
    max_size=5,
)


def flat(nested, above=""):
    """A nested tree as paths with their contents, folders as None."""
    found = {}
    for name, content in nested.items():
        found |= flat(content, f"{above}{name}/") | {f"{above}{name}": None} if isinstance(content, dict) else {}
        found |= {} if isinstance(content, dict) else {f"{above}{name}": content}
    return found


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(nested=TREES, ending=st.sampled_from([*PACK, ".zip"]))
def test_any_tree_comes_out_as_it_went_in(tmp_path_factory, nested, ending):
    folder, files = tmp_path_factory.mktemp("any"), flat(nested)
    (folder / f"archive{ending.upper()}").write_bytes(archive_of(files, ending))
    sizes = []
    assert unpacking.unpack(folder / f"archive{ending.upper()}", folder / "new" / "target", advance=sizes.append)
    assert tree(folder / "new" / "target") == files
    assert sum(sizes) == sum(len(content or b"") for content in files.values())
    assert [path.name for path in (folder / "new").iterdir()] == ["target"]
    shutil.rmtree(folder)


@pytest.mark.skipif(shutil.which("zip") is None or shutil.which("tar") is None, reason="needs zip and tar")
@pytest.mark.parametrize(
    ("ending", "command"),
    [
        (".tar.gz", "tar -czf"),
        (".tar", "tar --format=gnu -cf"),
        (".tar.xz", "tar --format=pax -cJf"),
        (".zip", "zip -qr"),
    ],
)
def test_what_other_programs_pack_is_unpacked(place, tmp_path, ending, command):
    files = {"sub/a.bin": os.urandom(5000), "sub/empty": b"", "sub/" + "long" * 40: b"x", "none": None, "a b.txt": b"y"}
    write_tree(tmp_path / "made", files)
    path = place / f"archive{ending}"
    subprocess.run(f"{command} {path} .", shell=True, cwd=tmp_path / "made", check=True)
    unpacking.unpack(path, place / "target")
    assert tree(place / "target") == files | {"sub": None}


def test_nothing_of_the_owner_and_the_rights_is_taken_over(place):
    info = header("a", b"#!/bin/sh\n", mode=0o6777, uid=0, gid=0, uname="root")
    (place / "archive.tar").write_bytes(tar_of(info))
    unpacking.unpack(place / "archive.tar", place / "target")
    assert not stat.S_IMODE((place / "target" / "a").stat().st_mode) & 0o7111


def test_a_zip_in_a_zip_stays_one(place):
    inner = zip_of(("../../outside.txt", b"evil"))
    (place / "archive.zip").write_bytes(zip_of(("inner.zip", inner)))
    unpacking.unpack(place / "archive.zip", place / "target")
    assert tree(place / "target") == {"inner.zip": inner}


@pytest.mark.parametrize("ending", [".tar", ".zip"])
def test_what_may_be_written_is_limited(place, monkeypatch, ending):
    path = place / f"archive{ending}"
    path.write_bytes(archive_of({name: os.urandom(50_000) for name in "abcd"}, ending))
    before = snapshot(place)
    begun = pytest.fail if ending == ".zip" else lambda size: None  # a zip says at its end how much it holds
    with pytest.raises(DataError, match="the limit that was given: give a higher one"):
        unpacking.unpack(path, place / "target", limit_bytes=100_000, advance=begun)
    free = unpacking.RESERVE + 100_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 10**12, free))
    with pytest.raises(DataError, match=r"all that is free on the disk of .*place but for 1\.1 GB: make room"):
        unpacking.unpack(path, place / "target")
    assert snapshot(place) == before
    unpacking.unpack(path, place / "target", limit_bytes=300_000)


def test_a_full_disk_is_said(place, monkeypatch):
    (place / "archive.zip").write_bytes(archive_of({"a": b"x", "b": b"y"}, ".zip"))
    before = snapshot(place)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"the disk is full: make room for what .*archive\.zip holds"):
        unpacking.unpack(place / "archive.zip", place / "target", advance=full)
    assert snapshot(place) == before


@pytest.mark.parametrize("name", ["archive.rar", "archive.7z", "archive", "archive.gz", ".hidden.zip"])
def test_other_kinds_are_named(place, name):
    (place / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"is no archive that can be unpacked here, expected one of \.zip, \.tar"):
        unpacking.unpack(place / name, place / "target")


def test_parts_of_a_split_zip_are_named(place):
    (place / "archive.z01").write_bytes(b"x")
    (place / "archive.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"one part of several: join them first, as with `zip -s 0 archive.zip"):
        unpacking.unpack(place / "archive.zip", place / "target")


def test_a_missing_archive_and_a_file_in_the_way_are_named(place):
    with pytest.raises(DataError, match=r"a\.zip is missing"):
        unpacking.unpack(place / "a.zip", place / "target")
    (place / "a.zip").write_bytes(archive_of({"a": b"x"}, ".zip"))
    (place / "file").write_text("mine")
    with pytest.raises(DataError, match="file is in the way"):
        unpacking.unpack(place / "a.zip", place / "file")
    assert (place / "file").read_text() == "mine"


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("error", [PermissionError(errno.EPERM, "Not permitted", "target"), KeyboardInterrupt()])
def test_a_failing_rename_leaves_the_older_folder(place, monkeypatch, failing, error):
    (place / "archive.tar").write_bytes(archive_of({"a": b"x"}, ".tar"))
    before, real, calls = snapshot(place), os.replace, []

    def replace(*paths):
        calls.append(paths)
        if len(calls) == failing + 1:
            raise error
        real(*paths)

    monkeypatch.setattr(os, "replace", replace)
    is_interrupt = isinstance(error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt if is_interrupt else DataError, match="" if is_interrupt else "cannot be unp"):
        unpacking.unpack(place / "archive.tar", place / "target")
    assert len(calls) > failing
    assert snapshot(place) == before
    monkeypatch.undo()
    unpacking.unpack(place / "archive.tar", place / "target")
    assert tree(place / "target") == {"a": b"x"}
    assert sorted(path.name for path in place.iterdir()) == ["archive.tar", "target"]


def test_a_kill_between_the_renames_loses_nothing(place):
    (place / "target").rename(place / ".target.older")
    (place / "broken.tar").write_bytes(b"x")
    with pytest.raises(DataError, match="is damaged"):
        unpacking.unpack(place / "broken.tar", place / "target")
    assert tree(place / "target") == {"older": None, "older/file.txt": b"older"}


KILLED = """\
import sys, time
from rsbook import unpacking

def advance(size):
    print(size, flush=True)
    time.sleep(0.01)

unpacking.unpack(sys.argv[1], sys.argv[2], advance=advance)
"""


def test_a_kill_leaves_the_older_folder_and_the_next_one_cleans_up(place):
    files = {f"{i % 7}/{i}": os.urandom(300) for i in range(500)}
    (place / "archive.tar.gz").write_bytes(archive_of(files, ".tar.gz"))
    older = snapshot(place / "target")
    command = [sys.executable, "-c", KILLED, str(place / "archive.tar.gz"), str(place / "target")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    for _ in range(20):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 20 <= len(tree(place / ".target.unpacking")) < 500
    assert snapshot(place / "target") == older
    unpacking.unpack(place / "archive.tar.gz", place / "target")
    assert tree(place / "target") == files | {str(i): None for i in range(7)}
    assert sorted(path.name for path in place.iterdir()) == ["archive.tar.gz", "target"]


# In raw/


@pytest.fixture
def raw(tmp_path):
    """raw/ with two archives that share a folder, one that nobody asks for, and a file."""
    folder = tmp_path / "data" / "raw"
    folder.mkdir(parents=True)
    (folder / "a.zip").write_bytes(archive_of({"shared/a1": b"1", "shared/a2": b"2", "top": b"t"}, ".zip"))
    (folder / "b.tar.gz").write_bytes(archive_of({"shared/b1": b"3", "shared/deep/b2": b"4"}, ".tar.gz"))
    (folder / "other.zip").write_bytes(b"not looked at")
    (folder / "list.csv").write_bytes(b"5")
    return folder


ALL = {"shared/a1": b"1", "shared/a2": b"2", "top": b"t", "shared/b1": b"3", "shared/deep/b2": b"4", "list.csv": b"5"}


def unpack_all(raw):
    unpacking.unpack_all(raw, raw.parent / unpacking.MARKS, ("[ab].*",))


@pytest.fixture
def counted(monkeypatch):
    """The names of the archives that were unpacked."""
    names, real = [], unpacking.unpack

    def unpack(path, *others, **options):
        names.append(path.name)
        return real(path, *others, **options)

    monkeypatch.setattr(unpacking, "unpack", unpack)
    return names


def plain(raw):
    """The files in raw that are no archives."""
    return {k: v for k, v in tree(raw).items() if v is not None and not k.endswith((".zip", ".tar.gz"))}


def test_archives_in_raw_are_unpacked_once_and_side_by_side(raw, counted):
    unpack_all(raw)
    assert plain(raw) == ALL
    assert not (raw / unpacking.WORK).exists()
    unpack_all(raw)
    assert counted == ["a.zip", "b.tar.gz"]


def test_what_was_unpacked_by_hand_is_left_as_it_is(raw, counted):
    subprocess.run(["tar", "-xzf", "b.tar.gz"], cwd=raw, check=True)
    time_before = (raw / "shared" / "b1").stat().st_mtime_ns
    unpack_all(raw)
    unpack_all(raw)
    assert counted == ["a.zip"]
    assert plain(raw) == ALL
    assert (raw / "shared" / "b1").stat().st_mtime_ns == time_before


def test_what_has_gone_or_changed_is_unpacked_again(raw, counted):
    unpack_all(raw)
    (raw / "top").unlink()
    unpack_all(raw)
    assert counted == ["a.zip", "b.tar.gz", "a.zip"]
    assert plain(raw) == ALL
    (raw / "b.tar.gz").write_bytes(archive_of({"shared/b3": b"new"}, ".tar.gz"))
    unpack_all(raw)
    assert counted == ["a.zip", "b.tar.gz", "a.zip", "b.tar.gz"]
    assert plain(raw) == ALL | {"shared/b3": b"new"}


def test_another_file_is_not_overwritten(raw):
    (raw / "shared").mkdir()
    (raw / "shared" / "a2").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"shared/a2 is there already and is not what a\.zip holds: move one"):
        unpack_all(raw)
    assert (raw / "shared" / "a2").read_bytes() == b"mine"
    (raw / "shared" / "a2").unlink()
    unpack_all(raw)
    assert plain(raw) == ALL


def test_nothing_goes_through_a_link_that_lies_in_raw(raw, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (raw / "shared").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="shared is there already and is not what"):
        unpack_all(raw)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_archive_cannot_pass_for_one_that_is_unpacked(raw):
    (raw / "a.zip").write_bytes(archive_of({f"{unpacking.WORK}/b.tar.gz.1.2/evil": b"x"}, ".zip"))
    with pytest.raises(DataError, match=r"\.unpacking is there already and is not what a\.zip holds"):
        unpack_all(raw)


def test_a_hostile_archive_in_raw_stops_all_and_leaves_nothing(raw):
    (raw / "b.tar.gz").write_bytes(gzip.compress(tar_of(header("fine", b"x"), header("../../up", b"evil"))))
    with pytest.raises(DataError, match=r"b\.tar\.gz is refused"):
        unpack_all(raw)
    assert plain(raw.parent) == {
        **{f"raw/{name}": content for name, content in ALL.items() if not name.split("/")[-1].startswith("b")},
        unpacking.MARKS: (raw.parent / unpacking.MARKS).read_bytes(),
    }


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a.zip": 3}', '{"a.zip": [[1], 5]}', '{"a.zip": [1, []]}'])
def test_damaged_marks_are_no_harm(raw, content):
    unpack_all(raw)
    (raw.parent / unpacking.MARKS).write_text(content)
    unpack_all(raw)
    assert plain(raw) == ALL


def test_an_interruption_anywhere_is_gone_on_with(raw, monkeypatch):
    """Each step that changes a name is the last one in turn, until there are no more steps."""
    pristine, steps = shutil.copytree(raw, raw.parent / "pristine"), 0
    real = {name: getattr(os, name) for name in ("rename", "replace")}
    while True:
        shutil.rmtree(raw)
        (raw.parent / unpacking.MARKS).unlink(missing_ok=True)
        shutil.copytree(pristine, raw)
        left = iter(range(steps))

        def stopping(name, left=left):
            def change(*arguments, **options):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return real[name](*arguments, **options)

            return change

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, stopping(name))
            try:
                unpack_all(raw)
                break
            except KeyboardInterrupt:
                pass
        assert set(plain(raw).items()) >= {("list.csv", b"5")}
        unpack_all(raw)
        assert plain(raw) == ALL
        assert not (raw / unpacking.WORK).exists()
        steps += 1
    assert steps >= 6


def zipped(folder, path, inside=True):
    """Pack a folder as a zip, in a folder of its name or not, and remove it."""
    files = {name if not inside else f"{folder.name}/{name}": content for name, content in tree(folder).items()}
    path.write_bytes(archive_of(files, ".zip"))
    shutil.rmtree(folder)


def prepared(root, name):
    assert cli.main(["data", "prepare", name, "--root", str(root)]) == 0
    return scenes.checksum(name, root)


def test_treesatai_is_prepared_from_its_zips(tmp_path, monkeypatch, counted):
    monkeypatch.setattr(preparing, "_workers", lambda: 1)
    raw = tmp_path / "plain" / "treesatai" / "raw"
    make_archives_treesatai.make(raw, np.random.default_rng(0))
    packed_raw = shutil.copytree(raw, tmp_path / "packed" / "treesatai" / "raw")
    for i, folder in enumerate(sorted(packed_raw.glob("aerial_60m_*"))):
        zipped(folder, packed_raw / f"{folder.name}_species.zip", inside=i % 2)
    zipped(packed_raw / "s2", packed_raw / "s2.zip")
    zipped(packed_raw / "labels", packed_raw / "labels.zip")
    assert prepared(tmp_path / "packed", "treesatai") == prepared(tmp_path / "plain", "treesatai")
    assert "labels.zip" in counted
    assert "s2.zip" not in counted
    assert len(counted) == len(set(counted))
    (packed_raw.parent / "SHA256SUMS").unlink()
    prepared(tmp_path / "packed", "treesatai")
    assert len(counted) == len(set(counted))


def test_aid_is_prepared_from_its_zips(tmp_path, monkeypatch, counted):
    monkeypatch.setattr(preparing, "_workers", lambda: 1)
    raw = tmp_path / "plain" / "aid" / "raw"
    make_archives_aid.make(raw, np.random.default_rng(0))
    packed_raw = shutil.copytree(raw, tmp_path / "packed" / "aid" / "raw")
    zipped(packed_raw / "images_tr", packed_raw / "images_tr.zip")
    zipped(packed_raw / "images_test", packed_raw / "drive-download-002.zip")
    (packed_raw / "labels.zip").write_bytes(zip_of(("multilabel.csv", (packed_raw / "multilabel.csv").read_bytes())))
    (packed_raw / "multilabel.csv").unlink()
    assert prepared(tmp_path / "packed", "aid") == prepared(tmp_path / "plain", "aid")
    assert sorted(counted) == ["drive-download-002.zip", "images_tr.zip", "labels.zip"]


def test_voc_is_prepared_from_its_tars(tmp_path, monkeypatch, counted):
    monkeypatch.setattr(preparing, "_workers", lambda: 1)
    raw = tmp_path / "plain" / "voc" / "raw"
    make_archives_voc.make(raw, np.random.default_rng(0))
    packed_raw = shutil.copytree(raw, tmp_path / "packed" / "voc" / "raw")
    archives = {"VOCdevkit": "VOCtrainval_11-May-2012.tar", "benchmark_RELEASE": "benchmark.tgz"}
    for name, archive in archives.items():
        files = {f"{name}/{inner}": content for inner, content in tree(packed_raw / name).items()}
        (packed_raw / archive).write_bytes(archive_of(files, Path(archive).suffix))
        shutil.rmtree(packed_raw / name)
    (packed_raw / "VOC2012test.tar").write_bytes(b"not needed")
    assert prepared(tmp_path / "packed", "voc") == prepared(tmp_path / "plain", "voc")
    assert sorted(counted) == sorted(archives.values())


def test_bigearthnet_is_prepared_from_its_tars(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_workers", lambda: 1)
    raw = tmp_path / "plain" / "bigearthnet" / "raw"
    make_archives_bigearthnet.make_v2(raw, np.random.default_rng(0))
    packed_raw = shutil.copytree(raw, tmp_path / "packed" / "bigearthnet" / "raw")
    for name in ("BigEarthNet-S2", "Reference_Maps"):
        files = {f"{name}/{inner}": content for inner, content in tree(packed_raw / name).items()}
        (packed_raw / f"{name}.tar.zst").write_bytes(archive_of(files, ".tar.zst"))
        shutil.rmtree(packed_raw / name)
    (packed_raw / "BigEarthNet-S1.tar.zst").write_bytes(b"not needed")
    assert prepared(tmp_path / "packed", "bigearthnet") == prepared(tmp_path / "plain", "bigearthnet")
    assert not (packed_raw / "BigEarthNet-S1").exists()


def test_a_damaged_archive_stops_preparing_with_its_name(tmp_path, capsys):
    raw = tmp_path / "deepglobe" / "raw"
    raw.mkdir(parents=True)
    (raw / "land-train.zip").write_bytes(archive_of({"land-train/1_sat.jpg": b"x" * 5000}, ".zip")[:40])
    assert cli.main(["data", "prepare", "deepglobe", "--root", str(tmp_path)]) == 1
    assert "land-train.zip is damaged" in capsys.readouterr().err
    assert [path.name for path in raw.iterdir()] == ["land-train.zip"]
