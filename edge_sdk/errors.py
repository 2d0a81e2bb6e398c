"""What can go wrong, named for what was found.

One root, a family per border. Every error has a stable `code` that a hub can show and a script can match, and an
`exit_status` the command line ends with. `str(error)` says what was found, where, and what to try. Concrete errors
of one package live in that package's `errors.py`, below the family defined here.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_FAILED = 1
EXIT_USAGE = 2


class EdgeError(Exception):
    """The root: catch it to catch everything this product raises on purpose.

    Args:
        what: What was found, one clause without a final stop.
        where: The file, topic, key or address it was found at.
        hint: What to try next.
    """

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = EXIT_FAILED

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(kind: type[EdgeError], fields: dict[str, object]) -> EdgeError:
    """Let errors with fields cross a process border, which `Exception`'s own pickling refuses."""
    error = kind.__new__(kind)
    Exception.__init__(error, fields.get("what", ""))
    error.__dict__.update(fields)
    return error


class UsageError(EdgeError):
    """The command line or an argument asks for something that makes no sense."""

    code = "usage"
    exit_status = EXIT_USAGE


class UnsafeListenError(UsageError):
    """A port would be open to the network without encryption."""

    code = "unsafe-listen"


class MissingExtraError(UsageError):
    """A command needs an optional dependency that is not installed."""

    code = "missing-extra"


class InternalError(EdgeError):
    """Something happened that we did not foresee: a mistake of ours."""

    code = "internal"


class ConfigError(EdgeError):
    """A configuration file has an unknown key, a bad value, or cannot be read."""

    code = "config"
    exit_status = EXIT_USAGE


class BundleError(EdgeError):
    """A bundle is missing, malformed or not what its manifest says."""

    code = "bundle"
    exit_status = EXIT_USAGE


class BundleFormatError(BundleError):
    """The manifest cannot be decoded, or is of a format this version does not read."""

    code = "bundle-format"


class BlobMismatchError(BundleError):
    """A blob is absent, of the wrong size, or its SHA-256 differs from its name."""

    code = "bundle-blob-mismatch"


class UnknownVariantError(BundleError):
    """A variant was named that the bundle does not hold."""

    code = "unknown-variant"


class SegmentsError(BundleError):
    """A split model is missing or malformed, or a segment's file is not what `split.json` says."""

    code = "segments"


class StorageError(EdgeError):
    """A file could not be written whole: full disk, missing permission, missing directory."""

    code = "storage"


class ProfileError(EdgeError):
    """A device profile is unknown or its file is malformed."""

    code = "profile"
    exit_status = EXIT_USAGE


class ImpossibleProfileError(ProfileError):
    """A device profile says what cannot be, such as a limit below the temperature of the idle board."""

    code = "profile-impossible"


class UnknownProfileError(ProfileError):
    """No profile has this id."""

    code = "unknown-profile"


class ConversionError(EdgeError):
    """A model could not be converted, evaluated or written."""

    code = "conversion"


class InputError(EdgeError):
    """An app passed something the model does not take."""

    code = "model-input"
    exit_status = EXIT_USAGE


class InputShapeError(InputError, ValueError):
    """An array has the wrong shape or the wrong number of inputs was given."""

    code = "model-input-shape"


class InputDtypeError(InputError, TypeError):
    """An array's dtype cannot be taken without losing information."""

    code = "model-input-dtype"


class InputValueError(InputError, ValueError):
    """An array holds NaN or infinity where the variant computes with integers."""

    code = "model-input-value"


class InputNameError(InputError, KeyError):
    """An input or output was named that the model does not have."""

    code = "model-input-name"

    __str__ = EdgeError.__str__


class DelegateError(EdgeError):
    """A runtime or an accelerator is missing or refuses to run a model."""

    code = "delegate"


class RuntimeUnavailableError(DelegateError):
    """No TFLite runtime can be used in this environment."""

    code = "runtime-unavailable"


class DelegateUnavailableError(DelegateError):
    """The asked-for delegate does not exist here."""

    code = "delegate-unavailable"


class WorkerLostError(DelegateError):
    """The process in which an accelerator computes crashed, hung, or ran out of memory.

    `is_lasting` where the library's own fault ended it, which it would commit again.
    """

    code = "worker-lost"

    def __init__(self, what: str, *, where: str = "", hint: str = "", is_lasting: bool = False) -> None:
        super().__init__(what, where=where, hint=hint)
        self.is_lasting = is_lasting


class ModelLoadError(DelegateError, ValueError, RuntimeError):
    """The runtime refuses the file: not a model, truncated, or with operators it does not know.

    The runtimes raise a ValueError or a RuntimeError then, and existing scripts catch these.
    """

    code = "model-load"


class MemoryShortError(DelegateError):
    """A variant does not fit into the memory that is free, not even in the place of the one that runs."""

    code = "memory-short"


class SwitchCancelledError(DelegateError):
    """A switch was called off, or a newer one took its place, before its variant was loaded."""

    code = "switch-cancelled"


class SwitchTimeoutError(DelegateError):
    """A switch was called off because its variant was not loaded by the deadline."""

    code = "switch-timeout"


class StageFailedError(DelegateError):
    """A stage of a pipeline could not compute a sample, or gave no answer in time.

    `stage` is its name.
    """

    code = "stage-failed"

    def __init__(self, what: str, *, stage: str = "", where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.stage = stage


class PipelineFullError(DelegateError):
    """A pipeline had no room for a sample in time: it is given more than its slowest stage computes."""

    code = "pipeline-full"


class ModelClosedError(EdgeError, RuntimeError):
    """A call came after `close()`."""

    code = "model-closed"


class PinnedError(EdgeError):
    """The variant is pinned by somebody with a higher word: the operator or the hub."""

    code = "pinned"


class TransportError(EdgeError):
    """The broker, the hub or the daemon could not be reached, or refused us."""

    code = "transport"


class DaemonUnreachableError(TransportError):
    """No daemon answers on the unix socket."""

    code = "daemon-unreachable"


class AddressInUseError(TransportError):
    """The port or socket to listen on is taken."""

    code = "address-in-use"


class RemoteError(TransportError, DelegateError):
    """Another host that computes for us did not.

    It is both: a matter of the network, and an engine that failed while it computed. Whatever replaces a failed engine
    by another (a guard, a pool, `Hedged`) need not know that this one is far away.
    """

    code = "remote"


class RemoteUnreachableError(RemoteError):
    """Nobody answers at the address, or the connection was lost before there was an answer."""

    code = "remote-unreachable"


class RemoteTimeoutError(RemoteError, TimeoutError):
    """The whole answer was not there when the deadline had passed."""

    code = "remote-timeout"

    __str__ = EdgeError.__str__


class RemoteRefusedError(RemoteError):
    """The server answers with an error.

    Attributes:
        status: Of HTTP, or what corresponds to it.
    """

    code = "remote-refused"

    def __init__(self, what: str, *, status: int, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.status = status


class RemoteAnswerError(RemoteError):
    """An answer that is cut off, malformed, or not what the server says the model gives."""

    code = "remote-answer"


class WireError(EdgeError):
    """A message that arrived is too large, malformed, or holds values out of bounds."""

    code = "malformed"


class InferRequestError(WireError):
    """A request to `edge serve` that is malformed, or about tensors the model does not have."""

    code = "infer-request"


class CommandError(EdgeError):
    """A command to a device was refused."""

    code = "command"
