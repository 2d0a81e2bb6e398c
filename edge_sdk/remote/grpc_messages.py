"""The Open Inference Protocol v2 over gRPC: its messages, made when they are first needed.

Field numbers of https://github.com/kserve/open-inference-protocol, grpc_predict_v2.proto. No generated code: what a
message is called does not travel, so that the nested ones of the original stand beside the others here. The classes
live in a pool of their own, and so may those of another client in the same process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
_PACKAGE = "inference"

_Kinds = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Kinds.TYPE_BOOL, "string": _Kinds.TYPE_STRING, "bytes": _Kinds.TYPE_BYTES,
    "int32": _Kinds.TYPE_INT32, "int64": _Kinds.TYPE_INT64, "uint32": _Kinds.TYPE_UINT32,
    "uint64": _Kinds.TYPE_UINT64, "float": _Kinds.TYPE_FLOAT, "double": _Kinds.TYPE_DOUBLE,
}  # fmt: skip
_PARAMETERS = "parameters*ParametersEntry"

# Each message: its fields by number. A star makes a field repeated, a capital letter begins the name of a message.
_MESSAGES: dict[str, dict[int, str]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {1: "live bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {1: "ready bool"},
    "ModelReadyRequest": {1: "name string", 2: "version string"},
    "ModelReadyResponse": {1: "ready bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {1: "name string", 2: "version string", 3: "extensions*string"},
    "ModelMetadataRequest": {1: "name string", 2: "version string"},
    "TensorMetadata": {1: "name string", 2: "datatype string", 3: "shape*int64"},
    "ModelMetadataResponse": {
        1: "name string", 2: "versions*string", 3: "platform string",
        4: "inputs*TensorMetadata", 5: "outputs*TensorMetadata",
    },
    "InferParameter": {
        1: "bool_param bool", 2: "int64_param int64", 3: "string_param string", 4: "double_param double",
        5: "uint64_param uint64",
    },
    "ParametersEntry": {1: "key string", 2: "value InferParameter"},
    "InferTensorContents": {
        1: "bool_contents*bool", 2: "int_contents*int32", 3: "int64_contents*int64", 4: "uint_contents*uint32",
        5: "uint64_contents*uint64", 6: "fp32_contents*float", 7: "fp64_contents*double", 8: "bytes_contents*bytes",
    },
    "InferTensor": {
        1: "name string", 2: "datatype string", 3: "shape*int64", 4: _PARAMETERS, 5: "contents InferTensorContents",
    },
    "InferRequestedOutputTensor": {1: "name string", 2: _PARAMETERS},
    "ModelInferRequest": {
        1: "model_name string", 2: "model_version string", 3: "id string", 4: _PARAMETERS, 5: "inputs*InferTensor",
        6: "outputs*InferRequestedOutputTensor", 7: "raw_input_contents*bytes",
    },
    "ModelInferResponse": {
        1: "model_name string", 2: "model_version string", 3: "id string", 4: _PARAMETERS, 5: "outputs*InferTensor",
        6: "raw_output_contents*bytes",
    },
}  # fmt: skip
_CHOICES = {"InferParameter": "parameter_choice"}  # of its fields one is set

# Which field of `InferTensorContents` has the numbers of a datatype; the others travel raw only.
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip


def _made() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="edge_sdk/inference.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if name in _CHOICES:
            message.oneof_decl.add(name=_CHOICES[name])
        for number, told in fields.items():
            field, _, kind = told.replace("*", " ").partition(" ")
            entry = message.field.add(name=field, number=number)
            entry.label = _Kinds.LABEL_REPEATED if "*" in told else _Kinds.LABEL_OPTIONAL
            if kind in _SCALARS:
                entry.type = _SCALARS[kind]
            else:
                entry.type, entry.type_name = _Kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            if name in _CHOICES:
                entry.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


MESSAGES = _made()


def path(method: str) -> str:
    """Of a method of the service."""
    return f"/{SERVICE}/{method}"
