"""The values of the HTTP API for those who run the hub: sessions, tokens, the audit log, groups."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge_hub.store.records import AuditRecord, TokenRecord
from edge_sdk.wire import Count, Name, Text, Unix, Wire

RoleName = Literal["viewer", "operator", "admin"]


class Login(Wire, frozen=True, kw_only=True):
    """A browser's way in: the token, once."""

    token: Annotated[str, Meta(max_length=512)]


class Session(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Who is asking, and what they may.

    Attributes:
        name: Of the token.
        csrf: What a browser sends as `X-Edge-CSRF` with what is not GET; also in the cookie `edge-hub-csrf`. Null for
            who came with a token.
    """

    name: Text
    role: Name
    csrf: Text | None = None


TOKEN_S: Final = (60, 10 * 366 * 86_400)  # how long one lasts


class TokenRequest(Wire, frozen=True, kw_only=True):
    """Make a token; one of the same name is replaced, and its sessions end."""

    name: Name
    role: RoleName
    expires_s: Annotated[float, Meta(ge=TOKEN_S[0], le=TOKEN_S[1])] | None = None


class NewToken(Wire, frozen=True, kw_only=True):
    """A fresh token, shown this once; the hub keeps its digest."""

    name: Name
    role: RoleName
    token: Text
    expires: Unix | None = None


class TokenView(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A token, without itself."""

    name: Name
    role: Name
    created: Unix
    expires: Unix | None = None
    last_used: Unix | None = None

    @classmethod
    def of(cls, record: TokenRecord) -> TokenView:
        """The view of a stored token."""
        return cls(**{name: getattr(record, name) for name in cls.__struct_fields__})


class TokenList(Wire, frozen=True, kw_only=True):
    """All tokens but the data directory's."""

    tokens: tuple[TokenView, ...]


class AuditView(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Who did what, when, to whom.

    Attributes:
        detail: What was asked, without secrets.
    """

    id: Count
    at: Unix
    who: Text
    role: Name
    what: Name
    target: str
    detail: Any = None

    @classmethod
    def of(cls, record: AuditRecord) -> AuditView:
        """The view of a stored entry."""
        return cls(
            id=record.id,
            at=record.at,
            who=record.who,
            role=record.role,
            what=record.what,
            target=record.target,
            detail=msgspec.json.decode(record.detail),
        )


class AuditPage(Wire, frozen=True, kw_only=True):
    """Entries, the newest first. Older ones: `before` the last one's id."""

    entries: tuple[AuditView, ...]


class AuditNews(Wire, frozen=True, kw_only=True):
    """The audit log has grown: what of is enough for who shows that to read it anew.

    Attributes:
        what: As an entry's: `rule`, `token-withdrawn`, ...
    """

    what: Name


class GroupRequest(Wire, frozen=True, kw_only=True):
    """What a group's name stands for."""

    query: Annotated[str, Meta(min_length=1, max_length=2000)]


class GroupView(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A named query, and how many devices it means now."""

    name: Name
    query: str
    devices: Count


class GroupList(Wire, frozen=True, kw_only=True):
    """All groups, by name."""

    groups: tuple[GroupView, ...]
