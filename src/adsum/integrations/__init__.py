"""Adapters between adsum and the libraries of others; one file for each library.

Import the file of your library, such as `adsum.integrations.httpx`. Each needs the extra of its
name, as in ``pip install "adsum[httpx]"``. Nothing else in the package imports them.

`httpx` and `aiohttp` send requests to instances of `adsum.Services`; `httpaddress` parses their
addresses for both. `socketio` links the processes of a Socket.IO server. `litestar` and
`broadcaster` carry the messages of these libraries between workers; `namedchannels` is their common
part. `django` has a layer for Django Channels, and presences for consumers and templates.
"""
