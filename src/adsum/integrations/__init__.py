"""Adapters between `adsum.Services` and the HTTP clients of others; one file for each library.

Import the file of your library, such as `adsum.integrations.httpx`. Each needs the extra of its
name, as in ``pip install "adsum[httpx]"``. Nothing else in the package imports them.

`httpaddress` parses the address of an instance; `httpx` and `aiohttp` use it.
"""
