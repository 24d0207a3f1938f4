"""Certificates made for one run of the tests."""

import shutil
import subprocess
from pathlib import Path

import pytest


def make_authority(directory: Path, name: str) -> None:
    openssl(
        directory,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
    )


def sign(directory: Path, name: str, authority: str, address: str | None = None) -> None:
    """Sign a certificate; with an address, clients can verify that it is the server's."""
    openssl(
        directory,
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
    )
    if address is not None:
        (directory / f"{name}.ext").write_text(f"subjectAltName=IP:{address}")
    openssl(
        directory,
        *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem"),
        *("-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2", "-out", f"{name}.pem"),
        *(("-extfile", f"{name}.ext") if address is not None else ()),
    )


def openssl(directory: Path, *arguments: str) -> None:
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("the openssl command, which makes the test certificates, is not installed")
    subprocess.run([command, *arguments], cwd=directory, check=True, capture_output=True)
