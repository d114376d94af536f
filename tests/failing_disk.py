"""A disk that is full, or a folder that is forbidden, from the n-th write on."""

import errno
import io
import itertools
import os
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from rsbook import checkpoints


class Disk:
    """Counts the writes below a folder, and lets them fail from the n-th on until it is lifted."""

    def __init__(self, folder, n, code):
        self.folder, self.left, self.code, self.hit = Path(folder).resolve(), n, code, None
        self.works = False

    def step(self, what, path, named=True):
        """One write: raises if it is the n-th or a later one."""
        if self.works or not Path(os.path.abspath(path)).is_relative_to(self.folder):
            return
        if self.code != errno.ENOSPC and not named:
            return  # who may open a file may write to it
        self.left -= 1
        if self.left < 0:
            self.hit = self.hit or f"{what} {path}"
            raise OSError(self.code, os.strerror(self.code), *([str(path)] if named else []))

    def lift(self):
        """From here on all goes well."""
        self.works = True

    @contextmanager
    def lifted(self):
        """A block in which all goes well."""
        self.works = True
        yield
        self.works = False


def _writes(mode):
    return bool(set("wax+") & set(mode))


@contextmanager
def failing(patch, folder, n, code=errno.ENOSPC):
    """Every way in which rsbook writes, failing from the n-th write (from 0) on."""
    disk, own = Disk(folder, n, code), {"open": io.open, "fsync": os.fsync, "os.open": os.open}

    def opened(path, mode="r", *more, **options):
        if not isinstance(path, int) and _writes(mode):
            disk.step("open", path)
        file = own["open"](path, mode, *more, **options)
        if not isinstance(path, int) and _writes(mode):
            file.write = written(file.write, path)
        return file

    def written(write, path):
        first = [True]

        def half(content):
            try:
                if first or disk.hit:  # one step a file, or a notebook would be hundreds
                    first.clear()
                    disk.step("write", path, named=False)
            except OSError:
                write(content[: len(content) // 2])
                raise
            return write(content)

        return half

    def opened_low(path, flags, *more, **options):
        if flags & (os.O_CREAT | os.O_TRUNC):
            disk.step("create", path)
        return own["os.open"](path, flags, *more, **options)

    def synced(descriptor):
        disk.step("fsync", os.readlink(f"/proc/self/fd/{descriptor}"), named=False)
        own["fsync"](descriptor)

    def before(what, function, at=0):
        def call(*given, **options):
            disk.step(what, given[at])
            return function(*given, **options)

        return call

    def saved(tensors, path, **options):
        try:
            disk.step("save", path)
        except OSError as error:
            if disk.code == errno.ENOSPC:
                with own["open"](path, "wb") as file:
                    file.write(b"half")
            reason = f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})"
            raise SafetensorError(reason) from None
        save(tensors, path, **options)

    save = checkpoints.save_file
    with patch.context() as patched:
        patched.setattr(io, "open", opened)
        patched.setattr("builtins.open", opened)
        patched.setattr(os, "open", opened_low)
        patched.setattr(os, "fsync", synced)
        patched.setattr(checkpoints, "save_file", saved)
        for name, at in (("mkdir", 0), ("replace", 1), ("rename", 1)):
            patched.setattr(os, name, before(name, getattr(os, name), at))
        yield disk


def each_failure(patch, folder, code=errno.ENOSPC):
    """A disk that fails from its first write on, then one that fails from its second, until none is left to fail."""
    for n in itertools.count():
        with failing(patch, folder, n, code) as disk:
            yield disk
        if disk.hit is None:
            return
