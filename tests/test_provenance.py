"""What a record says of code, machine and libraries."""

import platform
import re
import subprocess
import sys

import pytest
import torch

from rsbook import provenance


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=b", *arguments],
        check=True,
        capture_output=True,
    )


def test_provenance_says_commit_and_whether_anything_differs_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = provenance.provenance("cpu")
    assert (found["commit"], found["uncommitted_changes"]) == (None, None)  # a downloaded copy
    assert found["python"] == platform.python_version()
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("_runs/\n")
    assert (provenance.provenance("cpu")["commit"], provenance.provenance("cpu")["uncommitted_changes"]) == (None, True)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    found = provenance.provenance("cpu")
    assert re.fullmatch("[0-9a-f]{40}", found["commit"])
    assert found["uncommitted_changes"] is False
    (tmp_path / "_runs").mkdir()
    (tmp_path / "_runs" / "record.json").write_text("{}")
    assert provenance.provenance("cpu")["uncommitted_changes"] is False
    (tmp_path / "new.py").write_text("")
    assert provenance.provenance("cpu")["uncommitted_changes"] is True
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "inner")  # installed into somebody else's checkout
    assert (provenance.provenance("cpu")["commit"], provenance.provenance("cpu")["uncommitted_changes"]) == (None, None)


def test_provenance_without_git_or_libraries(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(provenance, "LIBRARIES", ("torch", "no-such-library"))
    found = provenance.provenance("cpu")
    assert (found["commit"], found["uncommitted_changes"]) == (None, None)
    assert found["versions"]["no-such-library"] is None
    assert found["device"]


def test_only_libraries_that_can_change_a_number_are_locked_into_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.locked_versions() == {}
    assert provenance.lock_hash() is None
    lock = tmp_path / "requirements.lock"
    lock.write_text("jupyterlab==4.4 \\\n    --hash=sha256:00\ntorch==2.15.0 \\\n    --hash=sha256:11\nnumpy==2.4.6\n")
    assert provenance.locked_versions() == {"numpy": "2.4.6", "torch": "2.15.0"}
    before = provenance.lock_hash()
    lock.write_text(lock.read_text().replace("4.4", "4.5"))
    assert provenance.locked_versions() == {"numpy": "2.4.6", "torch": "2.15.0"}
    assert provenance.lock_hash() != before
    lock.write_text(lock.read_text().replace("2.15.0", "2.16.0"))
    assert provenance.locked_versions()["torch"] == "2.16.0"


def test_the_real_lock_file_names_every_library_that_counts():
    assert provenance.locked_versions().keys() == set(provenance.LIBRARIES)


def test_the_peak_of_memory_is_that_since_it_was_forgotten():
    code = """if True:
        from rsbook import provenance
        def peak():
            return provenance.peak_memory("cpu")["process_megabytes"]
        provenance.forget_peak_memory("cpu")
        found = [peak()]
        kept = b"x" * 300_000_000
        found.append(peak())
        del kept
        found.append(peak())
        provenance.forget_peak_memory("cpu")
        print(*found, peak())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, during, after, forgotten = map(int, done.stdout.split())
    assert during - before == pytest.approx(300, abs=30)
    assert after == during
    assert forgotten < during - 200


def test_durations_are_words():
    assert [provenance.duration(s) for s in (3.6, 123, 4500)] == ["4 s", "2 min 3 s", "1 h 15 min"]
