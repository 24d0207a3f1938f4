"""Instances with addresses that begin with https."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from .clients import Client, HttpxClient
from .raw_server import RawServer
from .registered import registered


def test_address_with_https_is_asked_over_tls(
    client_type: type[Client], certificates: Path
) -> None:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificates / "node.pem", certificates / "node.key")
    client_side = ssl.create_default_context(cafile=certificates / "authority.pem")
    client_side.check_hostname = False  # the certificate names no host
    name = "verify" if client_type is HttpxClient else "ssl"
    settings: dict[str, Any] = {name: client_side}

    async def work() -> None:
        async with registered() as (services, _), RawServer("a", tls=server_side) as server:
            services.register("users", server.address)
            async with client_type(services, **settings) as client:
                assert (await client.fetch("/x")).text == "a /x"
            async with client_type(services, **{name: True}) as client:
                with pytest.raises(client.connect_error, match="certificate verify failed"):
                    await client.fetch("/x")

    asyncio.run(work())
