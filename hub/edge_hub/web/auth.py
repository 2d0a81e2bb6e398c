"""Who asks, and what they may: a bearer token for programs, a signed cookie for a browser.

The data directory's token is the administrator's; further tokens, each with a role, are in the store as digests. A
cookie is worth the token it was made from, until it expires, its browser logs out, or that token is changed or
withdrawn. It is `SameSite=Strict`, and what a browser changes must carry a second value that no other site can read,
bound to the session (OWASP: signed double submit).
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request

from edge_hub.errors import CrossSiteError, ForbiddenError, StoreError, TokenRefusedError
from edge_hub.store import Store
from edge_hub.store.records import RuleRecord, TokenRecord

COOKIE = "edge-hub"
CSRF_COOKIE = "edge-hub-csrf"
# What a browser takes for itself from TLS alone, for this host alone (RFC 6265bis, section 4.1.3.2): neither an
# unencrypted port of the same host nor a host beside it can put another session in the place of somebody's.
HOST_ONLY = "__Host-"
CSRF_HEADER = "X-Edge-CSRF"
SESSION_S = 7 * 86_400
ADMIN = "admin"  # the name of the data directory's token
_FRESH_S = 2.0  # another process's change of a token is seen after this
_USED_EVERY_S = 60.0
_MAX_TIME_DIGITS = 12
_MAX_GIVEN_CHARS = 512
_MAX_COOKIE_CHARS = 1024
# Sessions that somebody ended before their time, kept among the rules until then; of more, the earliest come to life.
_ENDED = "ended:"
_MAX_ENDED = 1000


class Role(enum.IntEnum):
    """What a token allows; each role may what those below it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """As it is written."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """The role of this name; one that is not known may look only."""
        return {role.word: role for role in cls}.get(word, cls.VIEWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        name: Of the token.
        session: The cookie's value, where a browser asks.
    """

    name: str
    role: Role
    session: str | None = None


class Gate:
    """Knows the tokens.

    Args:
        token: The administrator's, which also signs the cookies.
        store: Of the others.
        clock: Seconds since 1970.
        secure: The hub speaks TLS itself.

    Attributes:
        cookie: Name of a session's.
        csrf_cookie: Name of the readable one beside it.
        secure: As above.
    """

    def __init__(
        self, token: str, store: Store, clock: Callable[[], float] = time.time, *, secure: bool = False
    ) -> None:
        self.secure = secure
        self.cookie, self.csrf_cookie = (f"{HOST_ONLY if secure else ''}{name}" for name in (COOKIE, CSRF_COOKIE))
        self._key = token.encode()
        self._store = store
        self._clock = clock
        self._admin = TokenRecord(name=ADMIN, role=ADMIN, digest=digest(token), created=0.0)
        self._by_name: Mapping[str, TokenRecord] = {}
        self._by_digest: Mapping[str, TokenRecord] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._used_at: dict[str, float] = {}
        self._ended: frozenset[str] = frozenset()

    async def caller(self, request: Request) -> Caller:
        """Who asks.

        Raises:
            TokenRefusedError: Nobody we know.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self.holder(given.strip())
        session = request.cookies.get(self.cookie)
        if session is not None:
            return await self._of_session(session)
        raise TokenRefusedError(
            "no token", hint="send 'Authorization: Bearer TOKEN'; the administrator's lies in the data directory"
        )

    async def holder(self, token: str) -> Caller:
        """Whose token this is.

        Raises:
            TokenRefusedError: Nobody's, or its time is over.
        """
        # Looked up by its digest, so that the time it takes says nothing of how much of it was right.
        found = digest(token[:_MAX_GIVEN_CHARS])
        record = self._admin if hmac.compare_digest(found, self._admin.digest) else None
        if record is None:
            await self._refresh()
            record = self._by_digest.get(found)
        return Caller(name=(known := self._in_time(record)).name, role=await self._used(known))

    async def check(self, request: Request, caller: Caller, role: Role) -> None:
        """Let pass what this caller may do.

        Raises:
            ForbiddenError: The role is too low.
            CrossSiteError: A browser's request that another site may have made.
        """
        if caller.role < role:
            raise ForbiddenError(
                f"the token {caller.name!r} is of a {caller.role.word}, this is for {role.word}s",
                hint="ask an administrator for another token",
            )
        if caller.session is not None and request.method not in {"GET", "HEAD"}:
            given = request.headers.get(CSRF_HEADER, "")
            if not _same(given, self.csrf_of(caller.session)):
                raise CrossSiteError(
                    f"the header {CSRF_HEADER} is missing or not this session's",
                    hint=f"send the value of the cookie {self.csrf_cookie}, or a token instead of the cookie",
                )

    def new_session(self, caller: Caller) -> str:
        """A cookie's value for whoever holds a token."""
        expires = int(self._clock()) + SESSION_S
        head = f"{expires}.{secrets.token_urlsafe(12)}"
        return f"{head}.{self._mac(head, self._known(caller.name))}.{caller.name}"

    def csrf_of(self, session: str) -> str:
        """What a browser must send with each change it asks for in this session."""
        return hmac.new(self._key, f"edge-hub csrf {session}".encode(), hashlib.sha256).hexdigest()

    async def end(self, session: str) -> None:
        """A session is over; another process of this hub knows within seconds."""
        now = self._clock()
        kept = [one for one in await self._store.rules() if one.name.startswith(_ENDED)]
        over = [one for one in kept if one.changed + SESSION_S <= now]
        crowd = sorted((one for one in kept if one not in over), key=lambda one: one.changed)
        for one in (*over, *crowd[: max(0, len(crowd) + 1 - _MAX_ENDED)]):
            await self._store.delete_rule(one.name)
        await self._store.put_rule(RuleRecord(name=_end_of(session), body=b"", changed=now))
        self.forget()

    def forget(self) -> None:
        """The tokens have changed."""
        self._read_at = float("-inf")

    async def _of_session(self, value: str) -> Caller:
        parts = value[:_MAX_COOKIE_CHARS].split(".", 3)
        refused = TokenRefusedError("the session is over or none of this hub's", hint="log in again")
        if len(parts) != 4 or not (parts[0].isascii() and parts[0].isdigit() and len(parts[0]) <= _MAX_TIME_DIGITS):  # noqa: PLR2004 - expiry, nonce, mac, name
            raise refused
        expires, nonce, mac, name = parts
        try:
            await self._refresh()
        except StoreError:
            if name != ADMIN:  # who is to mend the database is not kept out by its absence
                raise
        if _end_of(value) in self._ended:
            raise refused
        record = self._known(name)
        if record is None or not _same(mac, self._mac(f"{expires}.{nonce}", record)) or self._clock() >= int(expires):
            raise refused
        return Caller(name=name, role=await self._used(self._in_time(record)), session=value)

    def _known(self, name: str) -> TokenRecord | None:
        return self._admin if name == ADMIN else self._by_name.get(name)

    def _mac(self, head: str, record: TokenRecord | None) -> str:
        made_from = "" if record is None else record.digest
        return hmac.new(self._key, f"edge-hub session {head} {made_from}".encode(), hashlib.sha256).hexdigest()

    def _in_time(self, record: TokenRecord | None) -> TokenRecord:
        if record is None:
            raise TokenRefusedError("a wrong token", hint="the administrator's lies in the data directory")
        if record.expires is not None and self._clock() >= record.expires:
            raise TokenRefusedError(f"the token {record.name!r} has expired", hint="ask an administrator for another")
        return record

    async def _used(self, record: TokenRecord) -> Role:
        """Its role; that it was used is noted now and then."""
        now = self._clock()
        if record is not self._admin and now - self._used_at.get(record.name, float("-inf")) >= _USED_EVERY_S:
            self._used_at[record.name] = now
            await self._store.token_used(record.name, now=now)
        return Role.of(record.role)

    async def _refresh(self) -> None:
        async with self._reading:
            now = time.monotonic()
            if now - self._read_at < _FRESH_S:
                return
            records = await self._store.tokens()
            self._ended = frozenset(one.name for one in await self._store.rules() if one.name.startswith(_ENDED))
            self._by_name = {record.name: record for record in records}
            self._by_digest = {record.digest: record for record in records}
            self._used_at = {name: at for name, at in self._used_at.items() if name in self._by_name}
            self._read_at = now


def digest(token: str) -> str:
    """What is kept of a token; a random one of 256 bits needs no salt and no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _end_of(session: str) -> str:
    return f"{_ENDED}{digest(session)[:32]}"


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
