"""A certificate for tests to sign content credentials with, and the authority that issued it."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
BITS = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def write_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Three PEM files: certificate and authority, the private key, and all of it in one file."""
    authority = ec.generate_private_key(ec.SECP256R1())
    root = _issued("authority", authority, "authority", authority, is_authority=True)
    key = ec.generate_private_key(ec.SECP256R1())
    own = _issued("signer", key, "authority", authority, is_authority=False)
    chain = own.public_bytes(PEM) + root.public_bytes(PEM)
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = folder / "chain.pem", folder / "key.pem", folder / "both.pem"
    for file, content in zip(files, (chain, private, chain + private), strict=True):
        file.write_bytes(content)
    return files


def _issued(name, key, issuer_name, issuer_key, *, is_authority: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    usage = {bit: False for bit in BITS}
    usage |= {"key_cert_sign": True, "crl_sign": True} if is_authority else {"digital_signature": True}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not is_authority:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Maskless tests")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), organization])
