import errno
import os
from pathlib import Path

import pytest

from rsbook.files import is_local, location, reached, reaching, replacing


def write(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_a_file_is_replaced_and_nothing_is_left(tmp_path):
    path = tmp_path / "folder" / "record.json"
    write(path, "old")
    write(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_block_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "record.json"
    write(path, "old")
    with pytest.raises(TypeError):
        write(path, 3)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_meanwhile_reads_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    write(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_folder_is_a_path_whether_or_not_it_is_there(tmp_path):
    for given in (tmp_path / "absent", str(tmp_path / "absent"), f"file://{tmp_path}/absent"):
        for found in (location(given), reached(given)):
            assert is_local(found)
            assert Path(found) == tmp_path / "absent"
    assert location(Path("a:/b")) == Path("a:/b")
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_no_folder_is_written_and_read_as_well():
    path = location("memory://test_files/deeper/record.json")
    assert not is_local(reached("memory://test_files"))
    write(path, "old")
    with pytest.raises(TypeError):
        write(path, 3)
    assert path.read_text() == "old"
    assert [found.name for found in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (LookupError("no route"), OSError, errno.EIO),
        (PermissionError("no route"), PermissionError, errno.EACCES),
        (FileNotFoundError("no route"), FileNotFoundError, errno.ENOENT),
        (FileExistsError("no route"), FileExistsError, errno.EEXIST),
        (OSError(errno.EBUSY, "no route"), OSError, errno.EBUSY),
    ],
)
def test_whatever_a_storage_raises_is_an_oserror_that_names_the_address(tmp_path, raised, kind, code):
    path = location("memory://test_files/record.json")
    with pytest.raises(kind, match="no route") as found, reaching(path):
        raise raised
    assert (found.value.errno, found.value.filename) == (code, "memory://test_files/record.json")
    with pytest.raises(type(raised)) as found, reaching(tmp_path):
        raise raised
    assert found.value is raised


@pytest.mark.parametrize("address", ["foo://bucket/folder", "S3://bucket/folder"])
def test_an_address_that_no_library_knows_is_said(address):
    with pytest.raises(ValueError, match=f"'{address}' cannot be reached"):
        location(address)
