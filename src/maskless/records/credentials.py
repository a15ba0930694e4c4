"""C2PA content credentials of edited pictures: a signed manifest that names the region that a model drew in, with the
source as its ingredient. A source's own credentials stay in the manifest store, also broken ones."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from maskless.data.errors import MasklessError, MasklessWarning, first_line, require
from maskless.data.picture_file import FORMATS
from maskless.data.provenance import Provenance, ProvenanceOptions
from maskless.data.sixteen_bit import encode_png

if TYPE_CHECKING:
    import numpy as np

    from maskless.data.picture import SourceImage

SETTINGS = {
    # A picture must not make this program open a web page: what a source refers to elsewhere is not fetched.
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
"""C2PA's names of the signatures on elliptic curves."""
NONE, VALID, BROKEN, UNKNOWN = "none", "valid", "broken", "unknown"
"""What a source's credentials are; unknown where only its pixels are left."""
SOURCE_ID = "source"


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """The source of an edit as a file. credentials: what its own content credentials are."""

    content: bytes
    mime: str
    title: str
    credentials: str


class Signer:
    """Signs pictures with one certificate."""

    def __init__(self, certificate: str | Path, key: str | Path | None = None) -> None:
        """Read the certificate, and sign a small picture with it, so that a wrong one is found before any work.

        certificate: PEM; the certificate, then those that it was signed with. key: PEM, not encrypted; None takes the
        one that is in the certificate's file.

        Raises:
            MasklessError: the extra is not installed, a file cannot be read, the key does not belong to the
                certificate, or C2PA does not accept them.
        """
        try:
            import c2pa
        except ImportError:
            raise MasklessError("--sign needs c2pa-python: pip install 'maskless[c2pa]'") from None
        self._c2pa = c2pa
        self._context = c2pa.Context.from_dict(SETTINGS)
        self._info = _credentials(Path(certificate), Path(key or certificate))
        file = io.BytesIO()
        Image.new("RGB", (32, 32)).save(file, format="PNG")
        try:
            self.signed(file.getvalue(), "image/png", Provenance(box_xyxy=(0, 0, 32, 32), size_px=(32, 32)), None)
        except MasklessError as error:
            raise MasklessError(f"{certificate} cannot sign content credentials: {error}") from error

    @staticmethod
    def of(options: ProvenanceOptions) -> Signer | None:
        """The signer that the options name; None if they name none."""
        return None if options.sign is None else Signer(options.sign, options.sign_key)

    def ingredient(self, source: SourceImage) -> Ingredient:
        """The source of an edit. A file whose credentials are broken gives a MasklessWarning.

        A source that is not a file of this disk is represented by its pixels.
        """
        file = None if source.path is None else Path(source.path)
        if file is not None and file.is_file():
            content, mime = file.read_bytes(), _mime(file)
            if mime in self._c2pa.Builder.get_supported_mime_types():
                state = self._state(content, mime)
                whole = Ingredient(content=content, mime=mime, title=file.name, credentials=state)
                if state != BROKEN:
                    return whole
                kept = self._takes(whole)
                fate = "records so" if kept else "cannot keep them"
                text = f"the content credentials of {file.name} are broken; it is edited, and the manifest {fate}"
                warnings.warn(text, MasklessWarning, stacklevel=2)
                return whole if kept else replace(whole, content=_png(source.pixels), mime="image/png")
        title = "source" if file is None else file.name
        return Ingredient(content=_png(source.pixels), mime="image/png", title=title, credentials=UNKNOWN)

    def sign_file(self, path: Path, provenance: Provenance, ingredient: Ingredient, *, title: str = "") -> None:
        """Add signed content credentials to a picture file. Its pixels stay as they are.

        Raises:
            MasklessError: the file cannot be signed.
        """
        mime = f"image/{FORMATS[path.suffix.lower()].lower()}"
        path.write_bytes(self.signed(path.read_bytes(), mime, provenance, ingredient, title=title or path.name))

    def signed(
        self,
        content: bytes,
        mime: str,
        provenance: Provenance | None,
        ingredient: Ingredient | None,
        *,
        title: str = "",
    ) -> bytes:
        """A picture file with signed content credentials. mime: of the content, such as image/png.

        provenance: what was done to the source; None if it is only stored in another format or size. ingredient: the
        source; None for a picture that has none. A generated picture is not made from its source.

        Raises:
            MasklessError: the picture cannot be signed.
        """
        if provenance is not None and provenance.generated:
            ingredient = None
        manifest = _manifest(provenance, title, opened=ingredient is not None)
        output = io.BytesIO()
        try:
            with self._c2pa.Builder(manifest, self._context) as builder, self._signer() as signer:
                if ingredient is not None:
                    _add(builder, ingredient)
                builder.sign(signer, mime, io.BytesIO(content), output)
        except self._c2pa.C2paError as error:
            raise MasklessError(f"cannot sign {title or 'a picture'}: {first_line(error)}") from error
        return output.getvalue()

    def _signer(self) -> Any:
        return self._c2pa.Signer.from_info(self._c2pa.C2paSignerInfo(*self._info, None))

    def _state(self, content: bytes, mime: str) -> str:
        """What the content credentials of a picture file are."""
        try:
            with self._c2pa.Reader(mime, io.BytesIO(content), context=self._context) as reader:
                return BROKEN if reader.get_validation_state() == "Invalid" else VALID
        except self._c2pa.C2paError.ManifestNotFound:
            return NONE
        except self._c2pa.C2paError:
            return BROKEN

    def _takes(self, ingredient: Ingredient) -> bool:
        """Whether a manifest can keep an ingredient whose credentials are broken."""
        try:
            with self._c2pa.Builder({}, self._context) as builder:
                _add(builder, ingredient)
        except self._c2pa.C2paError:
            return False
        return True


def _add(builder: Any, ingredient: Ingredient) -> None:
    facts = {"title": ingredient.title, "relationship": "parentOf", "label": SOURCE_ID}
    builder.add_ingredient(facts, ingredient.mime, io.BytesIO(ingredient.content))


def _manifest(provenance: Provenance | None, title: str, *, opened: bool) -> dict[str, Any]:
    """The definition of a manifest: what was done to the picture that was opened, or how it was created."""
    from maskless import __version__

    agent = {"name": "Maskless", "version": __version__}
    first = [{"action": "c2pa.opened", "parameters": {"ingredientIds": [SOURCE_ID]}}] if opened else []
    if provenance is None:
        second: dict[str, Any] = {"action": "c2pa.transcoded"}
    else:
        second = _drawing("c2pa.edited" if opened else "c2pa.created", provenance)
    return {
        "title": title,
        "claim_generator_info": [agent],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [*first, second | {"softwareAgent": agent}]}},
        ],
    }


def _drawing(action: str, provenance: Provenance) -> dict[str, Any]:
    """The action of a model that drew in a rectangle."""
    x0, y0, x1, y1 = provenance.box_xyxy
    rectangle = {
        "type": "rectangle", "unit": "pixel", "origin": {"x": x0, "y": y0}, "width": x1 - x0, "height": y1 - y0,
    }  # fmt: skip
    return {
        "action": action,
        "digitalSourceType": provenance.source_type,
        "changes": [
            {"description": "drawn by a model", "region": [{"type": "spatial", "shape": rectangle}]},
        ],
    }


def _credentials(certificate: Path, key: Path) -> tuple[bytes, bytes, bytes]:
    """C2PA's name of the algorithm, and the chain of certificates and the private key as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    pem = serialization.Encoding.PEM
    try:
        chain = x509.load_pem_x509_certificates(_read(certificate))
    except ValueError as error:
        raise MasklessError(f"{certificate} holds no certificate in PEM: {first_line(error)}") from error
    try:
        private = serialization.load_pem_private_key(_read(key), password=None)
    except (ValueError, TypeError) as error:
        hint = "; give the file of the key with --sign-key" if key == certificate else ""
        raise MasklessError(f"{key} holds no unencrypted private key in PEM: {first_line(error)}{hint}") from error
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    ours, theirs = (each.public_key().public_bytes(pem, public) for each in (private, chain[0]))
    require(ours == theirs, f"the private key in {key} is not that of the certificate in {certificate}")
    if isinstance(private, ec.EllipticCurvePrivateKey):
        algorithm = ALGORITHMS.get(private.curve.name)
    else:
        kinds = {ed25519.Ed25519PrivateKey: "ed25519", rsa.RSAPrivateKey: "ps256"}
        algorithm = next((name for kind, name in kinds.items() if isinstance(private, kind)), None)
    require(algorithm is not None, f"{key} must be an RSA, Ed25519 or P-256, P-384 or P-521 key")
    plain = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return str(algorithm).encode(), b"".join(each.public_bytes(pem) for each in chain), plain


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MasklessError(f"cannot read {path}: {error.strerror or error}") from error


def _mime(path: Path) -> str:
    """The MIME type of a picture file by its content."""
    with Image.open(path) as image:
        return str(Image.MIME.get(image.format or "", ""))


def _png(pixels: np.ndarray) -> bytes:
    import numpy as np

    if pixels.dtype == np.uint16:
        return encode_png(pixels, icc_profile=None, exif=None, text={})
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()
