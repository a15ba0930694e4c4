"""The mark of an edited picture: an XMP packet that says that a model drew in it, and where.

The terms are those of IPTC: DigitalSourceType, and an ImageRegion for the rectangle that was edited.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError

from maskless.data.errors import MasklessError, MasklessWarning, require
from maskless.data.options import check_all, option

if TYPE_CHECKING:
    from xml.dom.minidom import Document, Element

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED, COMPOSITE = f"{SOURCE_TYPES}trainedAlgorithmicMedia", f"{SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
"""IPTC's names for a picture that a model has made, and for one that it has made a part of."""
RDF, IPTC = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
EMPTY_XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"></rdf:RDF></x:xmpmeta>'
PACKET_BEGIN, PACKET_END = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n', '\n<?xpacket end="w"?>'
GROUP = "Provenance"


@dataclass(frozen=True, kw_only=True)
class ProvenanceOptions:
    """What edited pictures say about where they come from.

    Raises:
        MasklessError: a value of the wrong type, or a key without a certificate.
    """

    provenance: bool = option(
        True,
        group=GROUP,
        help="Write into each edited picture that a model has drawn in it, and where (XMP, IPTC's DigitalSourceType).",
    )
    sign: str | None = option(
        None,
        group=GROUP,
        help="A certificate (.pem) to sign edited pictures with, as C2PA content credentials that name the region and "
        "keep those of the source.",
    )
    sign_key: str | None = option(
        None, group=GROUP, help="The private key of --sign (.pem) [default: it is in the certificate's file]."
    )

    def __post_init__(self) -> None:
        check_all(self)
        require(self.sign is not None or self.sign_key is None, "sign_key is the key of a certificate: give --sign too")
        require(
            self.provenance or self.sign is None, "sign writes where a picture comes from: leave out --no-provenance"
        )


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What was done to a picture. box_xyxy: the edited rectangle in pixels, half-open, inside the picture.
    size_px: width and height of the picture. generated: a model made the whole of it, from nothing."""

    box_xyxy: tuple[int, int, int, int]
    size_px: tuple[int, int]
    generated: bool = False

    @property
    def source_type(self) -> str:
        """IPTC's digital source type."""
        return GENERATED if self.generated else COMPOSITE


def marked_xmp(xmp: bytes | None, provenance: Provenance) -> bytes:
    """An XMP packet with the digital source type and the edited rectangle, beside all that the source's packet says.

    The rectangle is in shares of the picture's sides (rbUnit "relative"), so that it stays true when the picture is
    resized; seven decimals give the exact pixels back. It is added to the regions that are there. A picture that was
    wholly generated before remains so. If the source's packet cannot be read, it is left out with a MasklessWarning.
    """
    try:
        return _merged(xmp or EMPTY_XMP.encode(), provenance)
    except (ExpatError, MasklessError, ValueError, LookupError, RecursionError):
        text = "the XMP of the source is damaged and is replaced by that of the edit"
        warnings.warn(text, MasklessWarning, stacklevel=2)
        return _merged(EMPTY_XMP.encode(), provenance)


def _merged(xmp: bytes, provenance: Provenance) -> bytes:
    from xml.dom.minidom import parseString

    # Definitions of entities can make a small packet huge; XMP has none.
    require(b"<!DOCTYPE" not in xmp and b"<!ENTITY" not in xmp, "XMP must have no document type")
    document = parseString(xmp.strip(b"\0 \r\n\t"))
    found = document.getElementsByTagNameNS(RDF, "RDF")
    require(len(found) == 1, "XMP must have one rdf:RDF")
    rdf: Element = found[0]
    descriptions = _children(rdf, RDF, "Description")
    if not descriptions:
        descriptions = [_added(document, rdf, f'<rdf:Description xmlns:rdf="{RDF}" rdf:about=""/>')]
    earlier = [value for each in descriptions for value in _taken(each, "DigitalSourceType")]
    source_type = GENERATED if GENERATED in earlier else provenance.source_type
    _added(
        document,
        descriptions[0],
        f'<Iptc4xmpExt:DigitalSourceType xmlns:Iptc4xmpExt="{IPTC}">{source_type}</Iptc4xmpExt:DigitalSourceType>',
    )
    regions = [region for each in descriptions for region in _children(each, IPTC, "ImageRegion")]
    bags = [bag for region in regions for bag in _children(region, RDF, "Bag")]
    number = sum(len(_children(bag, RDF, "li")) for bag in bags) + 1
    item = _region_item(provenance, number)
    if bags:
        _added(document, bags[0], item)
    else:
        bag = f'<rdf:Bag xmlns:rdf="{RDF}">{item}</rdf:Bag>'
        whole = f'<Iptc4xmpExt:ImageRegion xmlns:Iptc4xmpExt="{IPTC}">{bag}</Iptc4xmpExt:ImageRegion>'
        _added(document, descriptions[0], whole)
    root = document.documentElement
    assert root is not None
    return f"{PACKET_BEGIN}{root.toxml()}{PACKET_END}".encode()


def _children(parent: Element, namespace: str, name: str) -> list[Any]:
    """The elements of this name directly below another."""
    elements = [node for node in parent.childNodes if node.nodeType == node.ELEMENT_NODE]
    return [node for node in elements if node.namespaceURI == namespace and node.localName == name]


def _added(document: Document, parent: Element, xml: str) -> Element:
    """The element of a text, as the last child of another."""
    from xml.dom.minidom import parseString

    root = parseString(xml).documentElement
    assert root is not None
    element: Element = document.importNode(root, True)
    parent.appendChild(element)
    return element


def _taken(description: Element, name: str) -> list[str]:
    """The values of an IPTC property, which is removed: an attribute or elements of a description."""
    values = []
    if description.hasAttributeNS(IPTC, name):
        values.append(description.getAttributeNS(IPTC, name))
        description.removeAttributeNS(IPTC, name)
    for node in _children(description, IPTC, name):
        text = "".join(child.data for child in node.childNodes if child.nodeType == child.TEXT_NODE)
        values.append((node.getAttributeNS(RDF, "resource") or text).strip())
        description.removeChild(node)
    return values


def _region_item(provenance: Provenance, number: int) -> str:
    """One IPTC image region: the edited rectangle. number: of this region among those of the picture, from 1."""
    (x0, y0, x1, y1), (width, height) = provenance.box_xyxy, provenance.size_px
    shares = {"rbX": x0 / width, "rbY": y0 / height, "rbW": (x1 - x0) / width, "rbH": (y1 - y0) / height}
    boundary = {"rbShape": "rectangle", "rbUnit": "relative"} | {name: f"{share:.7f}" for name, share in shares.items()}
    lines = "".join(f"<Iptc4xmpExt:{name}>{value}</Iptc4xmpExt:{name}>" for name, value in boundary.items())
    return (
        f'<rdf:li xmlns:rdf="{RDF}" xmlns:Iptc4xmpExt="{IPTC}" rdf:parseType="Resource">'
        f'<Iptc4xmpExt:RegionBoundary rdf:parseType="Resource">{lines}</Iptc4xmpExt:RegionBoundary>'
        f"<Iptc4xmpExt:rId>maskless-{number}</Iptc4xmpExt:rId>"
        '<Iptc4xmpExt:Name><rdf:Alt><rdf:li xml:lang="x-default">edited by Maskless</rdf:li></rdf:Alt>'
        "</Iptc4xmpExt:Name></rdf:li>"
    )
