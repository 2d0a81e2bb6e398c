"""What can go wrong in the daemon, below the families of `edge_sdk.errors`."""

from __future__ import annotations

from edge_sdk.errors import BundleError, CommandError, ConfigError, StorageError, TransportError


class StateInUseError(StorageError):
    """Another daemon works with the same state directory."""

    code = "state-in-use"


class UnknownModelError(CommandError):
    """A model was named that this daemon does not serve."""

    code = "unknown-model"


class UnknownAppError(CommandError):
    """An app speaks that never registered, or was given up because it was silent for too long."""

    code = "unknown-app"


class NoVariantError(BundleError):
    """A bundle holds no variant that could run on this machine."""

    code = "no-variant"


class BusyError(CommandError):
    """Another measurement is running; one at a time, so that neither disturbs the other."""

    code = "busy"


class MeasurementError(CommandError):
    """The child process that was to time a variant failed or ran out of time."""

    code = "measure-failed"


class NotAllowedError(TransportError):
    """The process at the other end of the socket belongs to a user who may not speak to the daemon."""

    code = "not-allowed"


class RequestError(TransportError):
    """A request to the local API that cannot be served: no such path, wrong method, body too large.

    Args:
        what: What was found.
        status: The HTTP status it is answered with.
    """

    code = "bad-request"

    def __init__(self, what: str, *, status: int, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.status = status


class UnknownPolicyError(ConfigError):
    """A policy was named that is neither ours nor any installed package's."""

    code = "unknown-policy"


class PolicyImportError(ConfigError):
    """A package names a policy that cannot be imported or made."""

    code = "policy-import"
