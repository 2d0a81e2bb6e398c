"""What can go wrong in the hub, named for what was found."""

from __future__ import annotations

from edge_sdk.errors import CommandError, StorageError, TransportError, UsageError


class BrokerError(TransportError):
    """The broker could not be started, or does not behave as one."""

    code = "broker"


class BrokerMissingError(BrokerError):
    """No broker is installed that could be started here."""

    code = "broker-missing"


class BrokerUnreachableError(BrokerError):
    """Nothing answers MQTT at the broker's address."""

    code = "broker-unreachable"


class BrokerRefusedError(BrokerError):
    """The broker answers, and refuses the hub's user name or password."""

    code = "broker-refused"


class DataLockedError(StorageError):
    """Another process uses the data directory."""

    code = "data-locked"


class StoreError(StorageError):
    """The database refuses to write or read: full disk, damage, another format."""

    code = "store"


class MoveError(StorageError):
    """The database that everything was to be moved to is not empty, is in use, or did not take all of it."""

    code = "move"


class StoreMovedError(StorageError):
    """The data directory's database was moved elsewhere: what is still here is not what the fleet goes by."""

    code = "store-moved"


class ExportLibraryError(StorageError):
    """The library that writes this format is not installed."""

    code = "export-library"


class HubUnreachableError(TransportError):
    """No hub answers at the address."""

    code = "hub-unreachable"


class HubUntrustedError(HubUnreachableError):
    """What answers cannot show that it is the hub: no certificate that counts here, not for this name, or no TLS."""

    code = "hub-untrusted"


class CertificateError(StorageError):
    """A file holds no certificate or key, or they do not belong together."""

    code = "certificate"


class TokenRefusedError(TransportError):
    """The hub answers, and refuses the token."""

    code = "token-refused"


class AnswerError(TransportError):
    """The hub answered with an error; its code is kept in `answer`."""

    code = "hub-answer"

    def __init__(self, what: str, *, answer: str, status: int, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.answer = answer
        self.status = status


class UnknownDeviceError(CommandError):
    """No device of this name was enrolled or heard of."""

    code = "unknown-device"


class UnknownCommandError(CommandError):
    """No command has this id."""

    code = "unknown-command"


class EnrolledError(CommandError):
    """The device has credentials already."""

    code = "already-enrolled"


class VersionConflictError(CommandError):
    """The desired document was changed by somebody else meanwhile."""

    code = "version-conflict"


class CommandFailedError(CommandError):
    """A device refused a command, or did not answer in time."""

    code = "command-failed"


class QueryError(UsageError):
    """A query for devices cannot be read; `column` says where, from 1."""

    code = "query"

    def __init__(self, what: str, *, column: int = 1, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where or f"query, column {column}", hint=hint)
        self.column = column


class UnknownBatchError(CommandError):
    """No commands were ordered at once under this id."""

    code = "unknown-batch"


class UnknownGroupError(CommandError):
    """No group has this name."""

    code = "unknown-group"


class UnknownRuleError(CommandError):
    """No alert rule has this name."""

    code = "unknown-rule"


class UnknownAlertError(CommandError):
    """No alert has this number."""

    code = "unknown-alert"


class UnknownSilenceError(CommandError):
    """No silence has this name, or its time is over."""

    code = "unknown-silence"


class UnknownTokenError(CommandError):
    """No token has this name."""

    code = "unknown-token"


class ForbiddenError(TransportError):
    """The token is good, but its role does not allow this."""

    code = "forbidden"


class CrossSiteError(TransportError):
    """A browser's request does not carry the value of its `edge-hub-csrf` cookie: another site may have made it."""

    code = "cross-site"


class TooManyRequestsError(TransportError):
    """More requests came from one token or address than are answered; `wait_s` until the next one is."""

    code = "too-many-requests"

    def __init__(self, what: str, *, wait_s: float = 1.0, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.wait_s = wait_s
