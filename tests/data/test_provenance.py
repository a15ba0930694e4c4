"""The mark of an edited picture: in every format, beside what the source says, without a change of any pixel."""

import warnings
from xml.dom.minidom import parseString

import numpy as np
import pytest

from maskless.data.errors import MasklessError, MasklessWarning
from maskless.data.metadata import Metadata
from maskless.data.picture import SourceImage, load_image, save_image
from maskless.data.picture_file import FORMATS
from maskless.data.provenance import COMPOSITE, GENERATED, IPTC, RDF, Provenance, ProvenanceOptions, marked_xmp

PIXELS = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
EDIT = Provenance(box_xyxy=(16, 12, 33, 24), size_px=(64, 48))
OWN = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:i="{IPTC}"
 i:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Bäume &amp; Häuser</rdf:li></rdf:Alt></dc:title>
<i:ImageRegion><rdf:Bag><rdf:li rdf:parseType="Resource"><i:rId>a face</i:rId></rdf:li></rdf:Bag></i:ImageRegion>
</rdf:Description></rdf:RDF></x:xmpmeta>
{" " * 2000}<?xpacket end="w"?>""".encode()


def values(xmp: bytes, name: str) -> list[str]:
    found = parseString(xmp).getElementsByTagNameNS(IPTC, name)
    return ["".join(child.data for child in node.childNodes) for node in found]


def boxes(xmp: bytes) -> list[list[int]]:
    """The rectangles, left, top, width, height, in pixels of a picture of 64 x 48."""
    sides = {"rbX": 64, "rbY": 48, "rbW": 64, "rbH": 48}
    columns = [[round(float(value) * side, 4) for value in values(xmp, name)] for name, side in sides.items()]
    return [list(box) for box in zip(*columns, strict=True)]


def test_a_packet_says_who_drew_where():
    xmp = marked_xmp(None, EDIT)
    assert values(xmp, "DigitalSourceType") == [COMPOSITE] and boxes(xmp) == [[16, 12, 17, 12]]
    assert values(xmp, "rbShape") == ["rectangle"] and values(xmp, "rbUnit") == ["relative"]
    whole = Provenance(box_xyxy=(0, 0, 64, 48), size_px=(64, 48), generated=True)
    assert values(marked_xmp(None, whole), "DigitalSourceType") == [GENERATED]


def test_what_the_source_says_is_kept_beside_it():
    xmp = marked_xmp(OWN, EDIT)
    assert "Bäume &amp; Häuser" in xmp.decode() and values(xmp, "rId") == ["a face", "maskless-2"]
    assert values(xmp, "DigitalSourceType") == [COMPOSITE] and b"digitalCapture" not in xmp
    again = marked_xmp(xmp, Provenance(box_xyxy=(0, 0, 64, 24), size_px=(64, 48)))
    assert boxes(again) == [[16, 12, 17, 12], [0, 0, 64, 24]] and values(again, "DigitalSourceType") == [COMPOSITE]


def test_a_generated_picture_stays_one_when_it_is_edited():
    generated = marked_xmp(None, Provenance(box_xyxy=(0, 0, 64, 48), size_px=(64, 48), generated=True))
    assert values(marked_xmp(generated, EDIT), "DigitalSourceType") == [GENERATED]


@pytest.mark.parametrize(
    "xmp",
    [
        b"<x:xmpmeta><rdf:Description/>",
        b"\xff\xfe\x00",
        b"<a/>",
        b'<!DOCTYPE a [<!ENTITY e "eeee">]><a>&e;</a>',
        b"<a>" * 60_000,
        b'<?xml version="1.0" encoding="no-such"?><a/>',
    ],
    ids=["not closed", "not text", "no RDF", "entities", "deep", "encoding"],
)
def test_a_damaged_packet_is_replaced_and_said_so(xmp):
    with pytest.warns(MasklessWarning, match="XMP of the source is damaged"):
        assert values(marked_xmp(xmp, EDIT), "DigitalSourceType") == [COMPOSITE]


@pytest.mark.parametrize("suffix", [*FORMATS, ".png of 16 bits"])
@pytest.mark.parametrize("own", [None, OWN], ids=["no XMP", "XMP"])
def test_every_format_carries_it_and_no_pixel_changes(suffix, own, tmp_path):
    pixels = PIXELS.astype(np.uint16) * 257 + 3 if "16" in suffix else PIXELS
    source = SourceImage(pixels=pixels, metadata=Metadata(xmp=own))
    with_mark, without = tmp_path / f"with{suffix[:5].strip()}", tmp_path / f"without{suffix[:5].strip()}"
    save_image(with_mark, pixels, source=source, provenance=EDIT)
    save_image(without, pixels, source=source)
    marked, plain = load_image(with_mark), load_image(without)
    assert np.array_equal(marked.pixels, plain.pixels) and plain.metadata.xmp == own
    assert values(marked.metadata.xmp, "DigitalSourceType") == [COMPOSITE]
    assert boxes(marked.metadata.xmp) == [[16, 12, 17, 12]]
    assert own is None or "Bäume" in marked.metadata.xmp.decode()


def test_exif_data_that_cannot_be_written_does_not_cost_the_mark(tmp_path):
    source = SourceImage(pixels=PIXELS, metadata=Metadata(exif=b"Exif\0\0nonsense"))
    save_image(tmp_path / "a.tif", PIXELS, source=source, provenance=EDIT)
    assert values(load_image(tmp_path / "a.tif").metadata.xmp, "DigitalSourceType") == [COMPOSITE]


def test_a_jpeg_without_room_for_the_sources_xmp_says_so(tmp_path):
    long = OWN.replace(b"Alt><rdf:li", b"Alt><!--" + b"x" * 70_000 + b"--><rdf:li", 1)
    source = SourceImage(pixels=PIXELS, metadata=Metadata(xmp=long))
    with pytest.warns(MasklessWarning, match="does not fit into a JPEG"):
        save_image(tmp_path / "a.jpg", PIXELS, source=source, provenance=EDIT)
    assert values(load_image(tmp_path / "a.jpg").metadata.xmp, "DigitalSourceType") == [COMPOSITE]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_image(tmp_path / "a.webp", PIXELS, source=source, provenance=EDIT)
    assert "Bäume" in load_image(tmp_path / "a.webp").metadata.xmp.decode()


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(MasklessError, match="give --sign too"):
        ProvenanceOptions(sign_key="key.pem")
    with pytest.raises(MasklessError, match="leave out --no-provenance"):
        ProvenanceOptions(sign="a.pem", provenance=False)
