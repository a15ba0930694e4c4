"""The header of a GGUF file is read without its tensors, and a damaged or hostile one is one line and little memory."""

import importlib.util
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.gguf_file import MAX_LIST, find_file, read_header, require_library
from tiny_gguf import write_gguf

pytest.importorskip("gguf")
pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A file with a quantized matrix, one that no block fits into, and a vector."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in
               {"a.weight": (8, 64), "b.weight": (4, 20), "a.bias": (8,)}.items()}  # fmt: skip
    return write_gguf(tmp_path_factory.mktemp("gguf") / "whole.gguf", weights, kind="Q4_0")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str = "a", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    sides = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sides + struct.pack("<IQ", kind, offset)


def file(*parts: bytes, tensors: int = 0, fields: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + b"".join(parts)


def test_the_header_says_what_the_library_wrote(whole):
    header = read_header(whole)
    assert header.architecture == "flux" and header.entries == 0
    assert header.shapes == {"a.weight": (8, 64), "b.weight": (4, 20), "a.bias": (8,)}
    assert header.formats == {"a.weight": "Q4_0", "b.weight": "F32", "a.bias": "F32"}


def test_lists_in_the_header_are_counted_and_passed_over(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "lists.gguf", arch="qwen2vl")
    writer.add_array("tokenizer.ggml.tokens", ["a", "blue", "house"])
    writer.add_array("numbers", [1, 2])
    writer.add_tensor("a", torch.zeros(32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "lists.gguf")
    assert (header.architecture, header.entries, dict(header.shapes)) == ("qwen2vl", 5, {"a": (32,)})


def test_a_file_that_ends_anywhere_is_one_line(whole, tmp_path):
    content = whole.read_bytes()
    for length in [*range(0, 400, 7), len(content) - 1]:
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(content[:length])
        with pytest.raises(MasklessError, match="cut short or damaged|is not a GGUF file") as caught:
            read_header(cut)
        assert "\n" not in str(caught.value) and str(cut) in str(caught.value)


BILLIONS = 2**62
HOSTILE = {
    "another file": (b"PK\x03\x04", "is not a GGUF file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
    "version 1": (file(version=1), "is GGUF of version 1; versions 2 and 3 are read"),
    "billions of tensors": (file(tensors=BILLIONS), "4,611,686,018,427,387,904 tensors, 32,768 at most"),
    "billions of fields": (file(fields=BILLIONS), "fields, 4,096 at most"),
    "a long name": (file(struct.pack("<Q", BILLIONS), fields=1), "bytes of a name, 1,024 at most"),
    "a long text": (file(text("a"), struct.pack("<IQ", 8, BILLIONS), fields=1), "bytes of a name"),
    "a long list": (file(text("a"), struct.pack("<IIQ", 9, 0, BILLIONS), fields=1), "cut short or damaged"),
    "a long list of texts": (
        file(text("a"), struct.pack("<IIQ", 9, 8, MAX_LIST + 1), fields=1), "entries of a list, 1,048,576 at most",
    ),
    "a list of lists": (file(text("a"), struct.pack("<IIQ", 9, 9, 1), fields=1), "unknown type 9"),
    "an unknown type": (file(text("a"), struct.pack("<I", 77), fields=1), "unknown type 77"),
    "a field twice": (file((text("a") + struct.pack("<IB", 0, 1)) * 2, fields=2), "names a field twice"),
    "an alignment of 3": (
        file(text("general.alignment"), struct.pack("<II", 4, 3), tensor(), bytes(200), fields=1, tensors=1),
        "its alignment is 3",
    ),
    "many sides": (file(tensor(shape=(1,) * 5), tensors=1), "5 sides of a, 4 at most"),
    "a side of nought": (file(tensor(shape=(0, 4)), tensors=1), r"has the shape \[4, 0\]"),
    "a broken block": (file(tensor(shape=(33,), kind=8), tensors=1), "cannot be stored as Q8_0"),
    "an unknown format": (file(tensor(kind=999), tensors=1), "unknown number format 999"),
    "an offset beyond the end": (file(tensor(offset=BILLIONS), bytes(200), tensors=1), "ends at byte 4,611"),
    "a huge shape": (file(tensor(shape=(2**60, 2**60)), bytes(200), tensors=1), "cut short or damaged: a ends at"),
    "a tensor twice": (file(tensor() + tensor(offset=128), bytes(400), tensors=2), "names a tensor twice"),
    "shared bytes": (file(tensor() + tensor("b", offset=32), bytes(400), tensors=2), "shares its bytes"),
    "a name that is no text": (file(struct.pack("<Q", 1) + b"\xff", fields=1), "is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_one_line(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(MasklessError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_of_changed_files_only_those_pass_that_the_library_reads(whole, tmp_path):
    """Bytes of the header are changed at random; whatever is not refused in one line has the same tensors for gguf."""
    import gguf

    content, path = whole.read_bytes(), tmp_path / "changed.gguf"
    passed = 0
    for seed in range(400):
        chance, changed = random.Random(seed), bytearray(content)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(4, 320)] = chance.choice((0, 1, 2, 8, 32, 127, 255, chance.randrange(256)))
        path.write_bytes(changed)
        try:
            header = read_header(path)
        except MasklessError as error:
            assert "\n" not in str(error)
            continue
        passed += 1
        found = {tensor.name: tuple(map(int, tensor.shape[::-1])) for tensor in gguf.GGUFReader(path).tensors}
        assert found == header.shapes, seed
    assert 0 < passed < 400


def test_hostile_headers_take_no_memory_of_note(tmp_path):
    """All of them together, and a file of 100 MB that is all header."""
    for number, (content, _message) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.gguf").write_bytes(content)
    with (tmp_path / "large.gguf").open("wb") as large:
        large.write(file(text("a"), struct.pack("<IIQ", 9, 8, MAX_LIST), fields=1, tensors=1))
        large.truncate(100 * 2**20)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from maskless.models.gguf_file import read_header; import gguf\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in Path(sys.argv[1]).glob('*.gguf'):\n"
        "    try: read_header(path)\n"
        "    except ValueError: pass\n"
        "    else: raise SystemExit(f'{path} was read')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 150 * 2**20


def test_another_name_or_no_file_is_one_line(tmp_path):
    with pytest.raises(MasklessError, match="--transformer takes a GGUF file .*, got flux.safetensors"):
        find_file("flux.safetensors")
    with pytest.raises(MasklessError, match="no such GGUF file: .*gone.gguf"):
        read_header(find_file(str(tmp_path / "gone.gguf")))
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(MasklessError, match="no such GGUF file"):
        read_header(find_file(str(tmp_path / "folder.gguf")))


@pytest.mark.parametrize("name", ["gguf", "accelerate"])
def test_a_missing_library_is_one_line_that_says_what_to_install(monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find(module))
    with pytest.raises(MasklessError, match=r"pip install 'maskless\[gguf\]'"):
        require_library()
