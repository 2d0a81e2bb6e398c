"""Who may speak to the daemon: the kernel says who is at the other end of the socket (`SO_PEERCRED`, unix(7))."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from edge_daemon.errors import NotAllowedError
from edge_sdk.errors import ConfigError

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end; `pid` is 0 where it lies in another pid namespace."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """Who connected."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid=pid, uid=uid, gid=gid)


def group_id(name: str) -> int:
    """The number of a group.

    Raises:
        ConfigError: There is no such group.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as cause:
        raise ConfigError(f"no group {name!r} on this machine", where="api.group", hint=f"groupadd {name}") from cause


def admit(peer: Peer, group: int | None) -> None:
    """Let the daemon's own user, root and members of `group` pass.

    Raises:
        NotAllowedError: The peer is none of these.
    """
    if peer.uid in {0, os.geteuid()}:
        return
    if group is not None and group in _groups_of(peer):
        return
    raise NotAllowedError(
        f"user {peer.uid} may not speak to this daemon", hint="add the user to the group named under [api] group"
    )


def _groups_of(peer: Peer) -> set[int]:
    try:
        return {peer.gid, *os.getgrouplist(pwd.getpwuid(peer.uid).pw_name, peer.gid)}
    except KeyError:  # a user of a container that this machine has no name for
        return {peer.gid}
