"""Addresses: how people write them, and who can reach them."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress


def is_local(address: IAddress) -> bool:
    """Whether only this machine can reach it."""
    if isinstance(address, UNIXAddress):
        return True
    return isinstance(address, IPv4Address | IPv6Address) and ip_address(address.host).is_loopback


def shown_address(address: IAddress) -> str:
    """An address as people write it."""
    if isinstance(address, UNIXAddress):
        return f"unix socket {(address.name or b'').decode(errors='replace')}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return str(address)
