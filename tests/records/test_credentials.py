"""Content credentials, read back by the reader of the C2PA library."""

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certificates import write_certificate
from maskless.data.errors import MasklessError, MasklessWarning
from maskless.data.picture import load_image, save_image
from maskless.data.picture_file import FORMATS
from maskless.data.provenance import COMPOSITE, GENERATED, Provenance, ProvenanceOptions
from maskless.records.credentials import Signer
from maskless.records.outputs import save_edit

c2pa = pytest.importorskip("c2pa")
PIXELS = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
EDIT = Provenance(box_xyxy=(16, 12, 33, 24), size_px=(64, 48))


@pytest.fixture(scope="module")
def pem(tmp_path_factory) -> tuple[Path, Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("pem"))


@pytest.fixture(scope="module")
def signer(pem) -> Signer:
    return Signer(pem[2])


def read(path: Path) -> tuple[str, dict]:
    """The validation state of a file, and its active manifest."""
    mime = f"image/{FORMATS[path.suffix].lower()}"
    with c2pa.Reader(mime, io.BytesIO(path.read_bytes())) as reader:
        return reader.get_validation_state(), reader.get_active_manifest()


def actions(manifest: dict) -> list[dict]:
    return [
        each for found in manifest["assertions"] if "actions" in found["label"] for each in found["data"]["actions"]
    ]


def signed_source(signer: Signer, path: Path) -> bytes:
    """A source with credentials of its own, written to a file."""
    save_image(path, PIXELS)
    signer.sign_file(path, EDIT, signer.ingredient(load_image(PIXELS)), title="the first edit")
    return path.read_bytes()


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_a_signed_picture_names_its_region_and_keeps_every_pixel(signer, suffix, tmp_path):
    save_image(tmp_path / "source.png", PIXELS)
    path = tmp_path / f"edited{suffix}"
    save_image(path, PIXELS, provenance=EDIT)
    before = load_image(path)
    signer.sign_file(path, EDIT, signer.ingredient(load_image(tmp_path / "source.png")))
    state, manifest = read(path)
    opened, edited = actions(manifest)
    assert state == "Valid" and opened["action"] == "c2pa.opened" and edited["action"] == "c2pa.edited"
    assert edited["digitalSourceType"] == COMPOSITE
    shape = edited["changes"][0]["region"][0]["shape"]
    assert (shape["origin"], shape["width"], shape["height"]) == ({"x": 16.0, "y": 12.0}, 17.0, 12.0)
    assert [each["title"] for each in manifest["ingredients"]] == ["source.png"]
    after = load_image(path)
    assert np.array_equal(after.pixels, before.pixels) and after.metadata.xmp == before.metadata.xmp


def test_pictures_of_16_bits_and_generated_ones_are_signed(signer, tmp_path):
    deep, path = PIXELS.astype(np.uint16) * 257 + 3, tmp_path / "a.png"
    save_image(path, deep)
    whole = Provenance(box_xyxy=(0, 0, 64, 48), size_px=(64, 48), generated=True)
    signer.sign_file(path, whole, signer.ingredient(load_image(deep)))
    state, manifest = read(path)
    assert state == "Valid" and np.array_equal(load_image(path).pixels, deep)
    assert [(each["action"], each["digitalSourceType"]) for each in actions(manifest)] == [("c2pa.created", GENERATED)]
    assert not manifest.get("ingredients")


def test_the_sources_credentials_are_kept(signer, tmp_path):
    signed_source(signer, tmp_path / "source.jpg")
    ingredient = signer.ingredient(load_image(tmp_path / "source.jpg"))
    save_image(tmp_path / "edited.png", PIXELS)
    signer.sign_file(tmp_path / "edited.png", EDIT, ingredient)
    state, manifest = read(tmp_path / "edited.png")
    assert state == "Valid" and ingredient.credentials == "valid"
    with c2pa.Reader("image/png", io.BytesIO((tmp_path / "edited.png").read_bytes())) as reader:
        first = reader.get_manifest(manifest["ingredients"][0]["active_manifest"])
    assert first["title"] == "the first edit"


@pytest.mark.parametrize("damage", ["a changed claim", "a cut box"])
def test_a_source_with_broken_credentials_is_edited_and_said_so(signer, make_result, pem, damage, tmp_path):
    content = bytearray(signed_source(signer, tmp_path / "source.webp"))
    place = content.find(b"drawn by a model") if damage == "a changed claim" else content.find(b"jumd") - 4
    content[place : place + 8] = b"\xff" * 8 if damage == "a cut box" else b"painted "
    (tmp_path / "source.webp").write_bytes(content)
    result = make_result(tmp_path / "source.webp")
    with pytest.warns(MasklessWarning, match=r"credentials of source\.webp are broken; it is edited"):
        saved = save_edit(result, tmp_path / "output", provenance=ProvenanceOptions(sign=str(pem[2])))
    assert saved.record["provenance"]["source_credentials"] == "broken"
    state, manifest = read(saved.final)
    assert state == "Valid" and actions(manifest)[1]["action"] == "c2pa.edited"
    noted = manifest["ingredients"][0].get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    assert bool(noted) == (damage == "a changed claim")


def test_an_edit_is_signed_with_every_candidate(make_result, pem, tmp_path):
    save_image(tmp_path / "source.png", PIXELS)
    result = make_result(tmp_path / "source.png")
    options = ProvenanceOptions(sign=str(pem[0]), sign_key=str(pem[1]))
    saved = save_edit(result, tmp_path / "output", provenance=options)
    for index, path in enumerate(saved.candidates):
        state, manifest = read(path)
        x0, y0, x1, y1 = result.edited(index).provenance.box_xyxy
        shape = actions(manifest)[1]["changes"][0]["region"][0]["shape"]
        assert state == "Valid" and shape["origin"] == {"x": x0, "y": y0}
        assert (shape["width"], shape["height"]) == (x1 - x0, y1 - y0)
        assert np.array_equal(load_image(path).pixels, result.edited(index).pixels())
    record = json.loads((saved.folder / "result.json").read_text("utf-8"))
    assert record["provenance"] == {"digital_source_type": COMPOSITE, "signed": True, "source_credentials": "none"}


def test_a_picture_that_is_only_converted_is_no_edit(signer):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format="JPEG")
    content = signer.signed(file.getvalue(), "image/jpeg", None, signer.ingredient(load_image(PIXELS)), title="a.jpg")
    with c2pa.Reader("image/jpeg", io.BytesIO(content)) as reader:
        assert reader.get_validation_state() == "Valid"
        assert [each["action"] for each in actions(reader.get_active_manifest())] == ["c2pa.opened", "c2pa.transcoded"]


def test_without_the_options_there_is_no_mark(make_result, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", MasklessWarning)
        saved = save_edit(make_result(PIXELS), tmp_path, provenance=ProvenanceOptions(provenance=False))
        marked = save_edit(make_result(PIXELS), tmp_path / "marked")
    assert load_image(saved.final).metadata.xmp is None and saved.record["provenance"]["digital_source_type"] is None
    assert COMPOSITE.encode() in load_image(marked.final).metadata.xmp
    assert load_image(marked.folder / "input_image.png").metadata.xmp is None
    assert np.array_equal(load_image(saved.final).pixels, load_image(marked.final).pixels)


@pytest.mark.parametrize(
    "files, said",
    [
        (lambda pem: (pem[0], None), "holds no unencrypted private key in PEM"),
        (lambda pem: (pem[1], pem[1]), "holds no certificate in PEM"),
        (lambda pem: (pem[0], pem[0].parent / "absent.pem"), "cannot read"),
        (lambda pem: (pem[0], write_certificate(pem[0].parent / "other")[1]), "is not that of the certificate"),
    ],
    ids=["no key", "no certificate", "no file", "another key"],
)
def test_a_wrong_certificate_is_one_line(pem, files, said):
    (pem[0].parent / "other").mkdir(exist_ok=True)
    with pytest.raises(MasklessError, match=said) as raised:
        Signer(*files(pem))
    assert "\n" not in str(raised.value)
