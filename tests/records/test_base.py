"""Whatever happens on the way, what is finished stays, and no half of anything is ever read."""

import json
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeconn_lite import data, files, records
from modeconn_lite.checkpoints import Checkpoint
from modeconn_lite.records import base, lab, pieces
from modeconn_lite.storage import load, read


def test_an_interrupted_run_loses_at_most_the_work_under_way(small, tmp_path, monkeypatch):
    done, train, row = [], lab.train, pieces.row
    stops = [("train", (2,)), ("row", (2, 3))]

    def do(what, which, make):
        if stops and stops[0] == (what, which):
            stops.pop(0)
            raise KeyboardInterrupt
        done.append((what, which))
        return make()

    monkeypatch.setattr(
        lab, "train", lambda *a, **o: do("train", tuple(a[2]), lambda: train(*a, **o))
    )
    monkeypatch.setattr(pieces, "row", lambda *a, **o: do("row", o["pair"], lambda: row(*a, **o)))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            small.run(pairs=2, methods=["linear"], root=tmp_path)
    small.run(pairs=2, methods=["linear"], root=tmp_path)
    first = [("train", (0,)), ("train", (1,)), ("row", (0, 1))]
    assert done == [*first, ("train", (2,)), ("train", (3,)), ("row", (2, 3))]  # nothing twice


def test_a_full_disk_leaves_no_half_record(small, tmp_path, monkeypatch):
    file = tmp_path / "mnist-1hl.json"
    base.Record(small, {"protocol": small.protocol, "whole": True}).write(tmp_path)

    def full(self, content):
        with self.open("wb") as half:
            half.write(content[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device.*mnist-1hl\.json"):
        base.Record(small, {"protocol": small.protocol}).write(tmp_path)
    monkeypatch.undo()
    assert files.read_json(file)["whole"]
    assert [p.name for p in tmp_path.iterdir()] == ["mnist-1hl.json"]


def test_a_full_disk_loses_no_training(small, tmp_path, monkeypatch):
    original, epochs = lab.save, []

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lab, "save", full)
    with pytest.raises(OSError, match="No space"):
        small.run(pairs=1, methods=["linear"], root=tmp_path)
    monkeypatch.setattr(lab, "save", original)
    write = Checkpoint.write
    monkeypatch.setattr(
        Checkpoint, "write", lambda self, p, loss: (epochs.append(len(loss)), write(self, p, loss))
    )
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    assert epochs == [1, 2]  # the second network only: the first was finished


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def found(record) -> dict:
    """What a record holds, but for the seconds that it took."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in record.content["rows"]]
    return record.content | {"rows": rows}


HARMS = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "nearly nothing": lambda content: content[:10],
    "one bit": flipped,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["seed-0.safetensors", "row-linear-0-1.json"])
def test_what_is_damaged_is_made_again(small, tmp_path, name, harm):
    first = small.run(pairs=1, methods=["linear"], root=tmp_path)
    (file,) = tmp_path.glob(f"runs/*/{name}")
    whole = file.read_bytes()
    file.write_bytes(HARMS[harm](whole))
    with pytest.warns(UserWarning, match=f"{name} is .*; it is made again"):
        again = small.run(pairs=1, methods=["linear"], root=tmp_path)
    assert found(again) == found(first)
    if name.endswith("safetensors"):
        assert all(torch.equal(w, load(file)[k]) for k, w in given(whole, tmp_path).items())
    small.run(pairs=1, methods=["linear"], root=tmp_path)  # sound, and no warning


def given(content: bytes, folder: Path):
    (folder / "copy").write_bytes(content)
    return load(folder / "copy")


def stopped(small, root, monkeypatch, write: int = 1) -> Path:
    """The folder of a run that was stopped after so many epochs of its first network."""
    with monkeypatch.context() as patch:
        original, count = Checkpoint.write, []

        def write_then_stop(self, *arguments):
            original(self, *arguments)
            count.append(1)
            if len(count) == write:
                raise KeyboardInterrupt

        patch.setattr(Checkpoint, "write", write_then_stop)
        with pytest.raises(KeyboardInterrupt):
            small.run(pairs=1, methods=["linear"], root=root)
    (folder,) = root.glob("runs/*")
    return folder


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_checkpoint_is_made_again(small, tmp_path, monkeypatch, harm):
    whole = found(small.run(pairs=1, methods=["linear"], root=tmp_path / "whole"))
    part = stopped(small, tmp_path, monkeypatch) / "seed-0.part"
    part.write_bytes(HARMS[harm](part.read_bytes()))
    with pytest.warns(UserWarning, match=r"seed-0\.part is .*"):
        assert found(small.run(pairs=1, methods=["linear"], root=tmp_path)) == whole


def test_a_checkpoint_that_outlived_its_training_is_cleared(small, tmp_path, monkeypatch):
    """A run was killed with its network stored, but the checkpoint not yet removed."""
    whole = found(small.run(pairs=1, methods=["linear"], root=tmp_path / "whole"))

    def killed(self, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            small.run(pairs=1, methods=["linear"], root=tmp_path)
    (part,) = tmp_path.glob("runs/*/seed-0.part")
    assert part.with_suffix(".safetensors").exists()
    assert found(small.run(pairs=1, methods=["linear"], root=tmp_path)) == whole
    assert not list(tmp_path.rglob("*.part"))


def test_the_checkpoint_of_another_seed_is_made_again(small, tmp_path, monkeypatch):
    whole = found(small.run(pairs=1, methods=["linear"], root=tmp_path / "whole"))
    folder = stopped(small, tmp_path, monkeypatch, write=2)
    (folder / "seed-0.part").rename(folder / "seed-1.part")
    said = r"seed-1\.part belongs to another training: there, seeds is \(0,\) instead of \(1,\)"
    with pytest.warns(UserWarning, match=said):
        assert found(small.run(pairs=1, methods=["linear"], root=tmp_path)) == whole
    assert not list(folder.glob("*.part"))


def test_files_that_change_places_are_noticed(small, tmp_path):
    first = small.run(pairs=2, methods=["linear"], root=tmp_path)
    (folder,) = tmp_path.glob("runs/*")
    for one, two in (
        ("seed-0.safetensors", "seed-1.safetensors"),
        ("row-linear-0-1.json", "row-linear-2-3.json"),
    ):
        contents = (folder / one).read_bytes(), (folder / two).read_bytes()
        (folder / one).write_bytes(contents[1])
        (folder / two).write_bytes(contents[0])
        with pytest.warns(UserWarning, match="instead of .*; it is made again") as warned:
            again = small.run(pairs=2, methods=["linear"], root=tmp_path)
        theirs, ours = two.split(".")[0], one.split(".")[0]
        for warning, words in zip(warned, ((one, theirs, ours), (two, ours, theirs)), strict=True):
            said = str(warning.message)
            parts = re.split(" is | instead of", said)[:3]
            assert all(word in part for word, part in zip(words, parts, strict=True))
        assert found(again) == found(first)


def test_another_run_s_network_is_no_network_of_this(small, tmp_path):
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    (folder,) = tmp_path.glob("runs/*")
    changed = replace(small, training=small.training | {"epochs": 1})
    first = found(changed.run(pairs=1, methods=["linear"], root=tmp_path))
    (other,) = set(tmp_path.glob("runs/*")) - {folder}
    (other / "seed-0.safetensors").write_bytes((folder / "seed-0.safetensors").read_bytes())
    with pytest.warns(UserWarning, match=f"is '{folder.name}/seed-0, seed 0' instead of"):
        assert found(changed.run(pairs=1, methods=["linear"], root=tmp_path)) == first


def test_other_data_under_the_same_protocol(small, tmp_path):
    """One image is another: networks and rows are kept elsewhere."""
    digits = data.load("digits")
    x = digits.train.x.clone()
    x[7, 30] += 1
    other = replace(digits, train=replace(digits.train, x=x))
    y = digits.test.y.clone()
    y[0] = (y[0] + 1) % 10
    third = replace(digits, test=replace(digits.test, y=y))
    for dataset in (digits, other, third):
        small.run(pairs=1, methods=["linear"], root=tmp_path, dataset=dataset)
    assert len(list(tmp_path.glob("runs/*"))) == 3
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    assert len(list(tmp_path.glob("runs/*"))) == 3


# From Python 3.12 on, a process with threads warns that it is copied.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_killed_over_and_over_a_run_ends_as_if_nothing_had_been(small, tmp_path):
    """Each process writes one file, and is killed with the next one half-written."""
    whole = found(small.run(pairs=1, methods=["linear"], root=tmp_path / "whole"))
    fork = multiprocessing.get_context("fork")  # a copy of this process: nothing to import again

    def run_and_die():
        torch.set_num_threads(1)  # a copied process has lost the threads of its original
        replace, writes = os.replace, []

        def replace_once(source, target):
            if writes:
                os.kill(os.getpid(), signal.SIGKILL)
            writes.append(target)
            replace(source, target)

        os.replace = replace_once
        small.run(pairs=1, methods=["linear"], root=tmp_path)

    codes = []
    while not codes or codes[-1]:
        child = fork.Process(target=run_and_die, daemon=True)
        child.start()
        child.join(120)
        codes.append(child.exitcode)
        assert len(codes) < 20
    # Two epochs and the finished file of two networks, how they do, and one row: the last process
    # writes it.
    assert codes == [-signal.SIGKILL] * 8 + [0]
    assert found(small.run(pairs=1, methods=["linear"], root=tmp_path)) == whole
    assert not list(tmp_path.rglob("*.part"))
    for one in (tmp_path / "whole").rglob("seed-*"):
        (two,) = tmp_path.glob(f"runs/*/{one.name}")
        assert all(torch.equal(w, load(two)[k]) for k, w in load(one).items())


def test_another_protocol_trains_other_networks(small, tmp_path):
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    changed = replace(small, training=small.training | {"epochs": 1})
    changed.run(pairs=1, methods=["linear"], root=tmp_path)
    assert len(list(tmp_path.glob("runs/*"))) == 2


def test_fresh_measures_again(small, tmp_path, monkeypatch):
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    measured, original = [], pieces.row
    monkeypatch.setattr(
        pieces, "row", lambda *a, **o: (measured.append(o["pair"]), original(*a, **o))[1]
    )
    monkeypatch.setattr(lab, "train", None)  # networks stay
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    assert not measured
    small.run(pairs=1, methods=["linear"], root=tmp_path, fresh=True)
    assert measured == [(0, 1)]


def test_a_record_says_where_it_comes_from(small, tmp_path):
    content = small.run(pairs=1, methods=["linear"], root=tmp_path, command="as typed").content
    assert content["command"] == "as typed"
    assert content["versions"]["torch"] == torch.__version__
    assert "CPU, threads" in content["hardware"]
    for name in ("about", "source", "published", "protocol"):
        assert content[name] == json.loads(json.dumps(getattr(small, name)))


def test_every_file_says_what_it_is(small, tmp_path):
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    (folder,) = tmp_path.glob("runs/*")
    row = json.loads((folder / "row-linear-0-1.json").read_text())
    assert list(row) == ["sha256", "name", "content"]
    assert row["name"] == f"{folder.name}/row-linear-0-1"
    assert read(folder / "seed-1.safetensors")[1]["name"] == f"{folder.name}/seed-1, seed 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device cannot be 'gpu'"),
        ({"device": None}, "device cannot be None"),
        ({"root": 3}, "root must be a folder's path"),
        ({"dataset": "digits"}, "dataset must be a Dataset"),
        ({"fresh": "no"}, "fresh must be True or False"),
        ({"command": ["python"]}, "command must be a string"),
    ],
)
def test_nonsense_is_refused_before_any_work(small, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        small.run(**({"pairs": 1, "root": tmp_path} | options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '{"experiment": "imagenet"}', None])
def test_a_damaged_record_names_the_command(tmp_path, text):
    file = tmp_path / "mnist-1hl.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=r"is no record.*python -m modeconn_lite run mnist-1hl"):
        records.read_record(file)


def test_a_record_with_a_hole_is_none(small, tmp_path):
    record = small.run(pairs=1, methods=["linear"], root=tmp_path)
    for hole in ("ends", "summary", "published"):
        file = tmp_path / f"without-{hole}.json"
        files.write_json({k: v for k, v in record.content.items() if k != hole}, file)
        with pytest.raises(ValueError, match=r"is no record \(KeyError"):
            records.read_record(file)


def test_one_changed_digit_of_a_record_is_noticed(small, tmp_path):
    record = small.run(pairs=1, methods=["linear"], root=tmp_path)
    record.write(tmp_path)
    file = tmp_path / "mnist-1hl.json"
    assert records.read_record(file).content == record.content
    file.write_text(file.read_text().replace("0.01,", "0.02,", 1))
    with pytest.raises(
        ValueError, match=r"is no record \(is damaged \(wrong checksum\)\); make it"
    ):
        records.read_record(file)


def test_every_record_of_the_book_has_an_experiment_and_every_experiment_a_module():
    book = Path(__file__).resolve().parents[2] / "book" / "records"
    for file in book.glob("*.json"):
        record = records.read_record(file)
        assert file.stem == record.experiment.stem(record.content)
    modules = {file.stem for file in Path(records.__file__).parent.glob("*.py")}
    assert {name.replace("-", "_") for name in records.EXPERIMENTS} <= modules
