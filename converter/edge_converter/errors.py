"""What can go wrong while converting, named for what was found."""

from __future__ import annotations

from edge_sdk.errors import EXIT_USAGE, ConversionError


class SourceError(ConversionError):
    """A model file is missing, corrupt, truncated, or not of a kind the converter reads."""

    code = "source-model"
    exit_status = EXIT_USAGE


class UnsupportedModelError(ConversionError):
    """The model is whole, but has a layer, an operator or a shape that cannot be converted."""

    code = "unsupported-model"
    exit_status = EXIT_USAGE


class SignatureMismatchError(ConversionError):
    """Two sources take or give different tensors, so they cannot share a bundle."""

    code = "signature-mismatch"
    exit_status = EXIT_USAGE


class DataError(ConversionError):
    """The labelled data is missing, empty, mislabelled, or does not fit the model."""

    code = "data"
    exit_status = EXIT_USAGE


class ChildProcessDiedError(ConversionError):
    """A child process that imports or converts died, or did not answer in time; the ones below say which."""

    code = "child-process"


class KerasProcessError(ChildProcessDiedError):
    """The child process that runs TensorFlow died, or did not answer in time."""

    code = "keras-process"


class TorchProcessError(ChildProcessDiedError):
    """The child process that runs PyTorch died, or did not answer in time."""

    code = "torch-process"


class OnnxProcessError(ChildProcessDiedError):
    """The child process that runs onnx2tf died, or did not answer in time."""

    code = "onnx-process"


class OnnxEnvironmentError(ConversionError):
    """The environment that onnx2tf runs in could not be made."""

    code = "onnx-environment"


class ImportMismatchError(ConversionError):
    """What an import made answers otherwise than the model it was made of."""

    code = "import-mismatch"
    exit_status = EXIT_USAGE


class QuantizationError(ConversionError):
    """The quantizer failed, or left every operator as it was."""

    code = "quantization"


class RecipeError(ConversionError):
    """A recipe is missing, malformed, or asks for a pass or an option that there is not."""

    code = "recipe"
    exit_status = EXIT_USAGE


class CrewProcessError(ChildProcessDiedError):
    """The child process that makes a variant died, or did not end in time."""

    code = "crew-process"


class PassContractError(ConversionError):
    """A pass did not give what it promises: a mistake of ours, or a network nobody thought of."""

    code = "pass-contract"


class NoCutError(ConversionError):
    """A model cannot be cut there, or not into so many parts."""

    code = "no-cut"
    exit_status = EXIT_USAGE


class SplitMismatchError(ConversionError):
    """The segments of a model do not compute the same as the whole, bit for bit."""

    code = "split-mismatch"


class EvidenceError(ConversionError):
    """A file of measured latencies is missing, or holds something else."""

    code = "evidence"
    exit_status = EXIT_USAGE


class CompilerError(ConversionError):
    """The compiler of an accelerator is missing, failed, crashed, hung, or gave nothing that can be read."""

    code = "compiler"


class MetricError(ConversionError):
    """A metric does not exist, raised, or gave something that is no number."""

    code = "metric"
    exit_status = EXIT_USAGE
