"""Signatures over folders with model-signing (OpenSSF), by a key of one's own.

    openssl ecparam -name prime256v1 -genkey -noout -out key.pem
    openssl ec -in key.pem -pubout -out public.pem

`model_signing verify key FOLDER --signature FILE --public_key public.pem` checks them too.
"""

from pathlib import Path
from typing import Any


def sign(folder: Path, signature: Path, key: Path) -> None:
    """Write a Sigstore bundle with the sha256 of every file of `folder`, signed by `key`.

    `signature` itself may lie in the folder. Links are followed: DVC's cache may be linked.
    """
    from model_signing import signing

    _check_key(key)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(_files(folder, signature)).sign(folder, signature)
    except (ValueError, TypeError) as error:  # TypeError: it wants a password
        raise ValueError(f"{key} cannot sign: {error}") from None


def verify(folder: Path, signature: Path, key: Path) -> None:
    """Raise ValueError unless `folder` is, file by file, what the owner of `key` signed."""
    from model_signing import verifying

    _check_key(key)
    if not signature.exists():
        raise ValueError(f"{signature} is missing: run `python -m tools.evidence --sign KEY`")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_files(folder, signature)).verify(folder, signature)
    except Exception as error:  # each of its parts raises another kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{folder} is not what {signature} was made of: {reason}") from None


def _files(folder: Path, signature: Path) -> Any:
    """All files of `folder`, but for the signature."""
    from model_signing import hashing

    inside = [signature.relative_to(folder)] if signature.is_relative_to(folder) else []
    return hashing.Config().set_allow_symlinks(True).set_ignored_paths(paths=inside)


def _check_key(key: Path) -> None:
    if not key.is_file():
        raise ValueError(f"{key} is no file: name a key in PEM (elliptic curve)")
