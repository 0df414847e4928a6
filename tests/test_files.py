"""Files are whole, or were never there; what changed in one of them is noticed to the bit."""

import json
import os
import signal
import subprocess
import sys

import pytest

from modeconn_lite import files


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_json_comes_back_in_its_order(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"é×": "“quoted” \\ text"}}
    file = tmp_path / "new" / "some.json"
    files.write_json(content, file)
    assert files.read_json(file) == content
    assert list(files.read_json(file)) == ["b", "a"]
    assert list(json.loads(file.read_text())) == ["sha256", "b", "a"]
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))  # as some systems check it out
    assert files.read_json(file) == content


def test_every_bit_of_json_counts(tmp_path):
    """Also where the changed text reads the same: 1e-05 and 1E-05, \\u00e9 and \\u00E9."""
    file = tmp_path / "some.json"
    files.write_json({"é": [1e-5, 0.1 + 0.2], "text": "a b"}, file)
    content = bytearray(file.read_bytes())
    for place in range(len(content)):
        for bit in range(8):
            content[place] ^= 1 << bit
            file.write_bytes(content)
            with pytest.raises(files.Damaged, match=r"some\.json is damaged.*delete and remake"):
                files.read_json(file)
            content[place] ^= 1 << bit
    file.write_bytes(content)
    files.read_json(file)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"name": "x"}', b"\x00" * 99, b"\xff"])
def test_what_was_not_sealed_is_damaged(tmp_path, content):
    file = tmp_path / "some.json"
    file.write_bytes(content)
    with pytest.raises(files.Damaged, match=r"some\.json is damaged \(no checksum\)"):
        files.read_json(file)


def test_what_killed_processes_left_is_cleared(tmp_path, gone):
    names = [f".a.json.{gone}.part", ".a.json.1.part", f".b.json.{gone}.part", ".a.json.x.part"]
    names += [f"a.json.{gone}.part", f".[a].json.{gone}.part"]
    for name in names:
        (tmp_path / name).write_text("half")
    files.write_whole(b"whole", tmp_path / "a.json")
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", *names[1:]}
    files.write_whole(b"whole", tmp_path / "[a].json")
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", "[a].json", *names[1:5]}
    files.clear_leftovers(tmp_path)  # process 1 lives; x is none; the last is no name of ours
    kept = {"a.json", "[a].json", names[1], names[3], names[4]}
    assert {p.name for p in tmp_path.iterdir()} == kept
    files.clear_leftovers(tmp_path / "not there")


def test_a_writer_that_lives_is_left_in_peace(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        part = tmp_path / f".a.json.{other.pid}.part"
        part.write_text("half")
        files.write_whole(b"whole", tmp_path / "a.json")
        assert part.exists()
    finally:
        other.kill()
        other.communicate()
    files.write_whole(b"whole", tmp_path / "a.json")
    assert not part.exists()


def test_a_failure_to_write_names_the_file_and_spares_the_old_one(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    files.write_whole(b"old", file)
    replace = os.replace

    def fails(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match=r"No space left on device.*a\.json"):
        files.write_whole(b"new", file)
    monkeypatch.setattr(os, "replace", replace)
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(OSError, match=r"b\.json"):
        files.write_whole(b"new", file / "b.json")  # a file where a folder should be
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        files.write_whole(b"new", tmp_path / "folder")


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from modeconn_lite import files, storage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (
    lambda: files.write_json({"long": "x" * 9000}, Path(sys.argv[1], "a.json")),
    lambda: storage.save({"w": torch.zeros(9000)}, Path(sys.argv[1], "a.safetensors")),
):
    try:
        write()
    except OSError as error:
        sys.stdout.write(f"{error}\\n")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_disk_that_really_takes_no_more(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    one, two = done.stdout.splitlines()
    assert "cannot write: File too large" in one
    assert one.endswith("a.json'")
    assert two.endswith("a.safetensors'")
    assert not list(tmp_path.iterdir())


def test_a_path_is_a_path():
    for wrong in (None, 3, "", "a\0b", b"bytes", ["a"]):
        with pytest.raises(ValueError, match="file must be a path"):
            files.check_file(wrong)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_waited_for_and_a_device_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", os.devnull):
        with pytest.raises(ValueError, match="is a device or a pipe"):
            files.check_file(special)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for plain in (tmp_path, tmp_path / "new", tmp_path / "loop"):
        assert files.check_file(plain) == plain
