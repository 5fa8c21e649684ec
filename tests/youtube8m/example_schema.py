"""The public schema of tf.train.Example and SequenceExample as protobuf classes: the oracle of the tests."""

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Type = descriptor_pb2.FieldDescriptorProto
_PACKAGE = ".tensorflow"


def _message(file: Any, name: str, *fields: tuple[str, int, int, bool, str]) -> Any:
    """Add a message; a field is name, number, type, whether it is repeated, and the name of its message."""
    message = file.message_type.add(name=name)
    for field, number, kind, repeated, of in fields:
        label = _Type.LABEL_REPEATED if repeated else _Type.LABEL_OPTIONAL
        message.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)
    return message


def _map_message(file: Any, name: str, field: str, entry: str, of: str) -> None:
    """Add a message whose only field is map<string, ``of``>."""
    message = _message(file, name, (field, 1, _Type.TYPE_MESSAGE, True, f"{_PACKAGE}.{name}.{entry}"))
    inner = message.nested_type.add(name=entry)
    inner.options.map_entry = True
    inner.field.add(name="key", number=1, type=_Type.TYPE_STRING, label=_Type.LABEL_OPTIONAL)
    inner.field.add(name="value", number=2, type=_Type.TYPE_MESSAGE, label=_Type.LABEL_OPTIONAL, type_name=of)


def _build() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="example_schema.proto", package=_PACKAGE[1:], syntax="proto3"
    )
    _message(file, "BytesList", ("value", 1, _Type.TYPE_BYTES, True, ""))
    _message(file, "FloatList", ("value", 1, _Type.TYPE_FLOAT, True, ""))
    _message(file, "Int64List", ("value", 1, _Type.TYPE_INT64, True, ""))
    feature = _message(
        file,
        "Feature",
        ("bytes_list", 1, _Type.TYPE_MESSAGE, False, f"{_PACKAGE}.BytesList"),
        ("float_list", 2, _Type.TYPE_MESSAGE, False, f"{_PACKAGE}.FloatList"),
        ("int64_list", 3, _Type.TYPE_MESSAGE, False, f"{_PACKAGE}.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    _map_message(file, "Features", "feature", "FeatureEntry", f"{_PACKAGE}.Feature")
    _message(file, "FeatureList", ("feature", 1, _Type.TYPE_MESSAGE, True, f"{_PACKAGE}.Feature"))
    _map_message(file, "FeatureLists", "feature_list", "FeatureListEntry", f"{_PACKAGE}.FeatureList")
    _message(file, "Example", ("features", 1, _Type.TYPE_MESSAGE, False, f"{_PACKAGE}.Features"))
    _message(
        file,
        "SequenceExample",
        ("context", 1, _Type.TYPE_MESSAGE, False, f"{_PACKAGE}.Features"),
        ("feature_lists", 2, _Type.TYPE_MESSAGE, False, f"{_PACKAGE}.FeatureLists"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _build()
Example, SequenceExample = (
    message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE[1:]}.{name}"))
    for name in ("Example", "SequenceExample")
)


def value_of(feature: Any) -> Any:
    """A Feature in the form that the parser gives; None where it is of no kind."""
    match feature.WhichOneof("kind"):
        case "bytes_list":
            return list(feature.bytes_list.value)
        case "float_list":
            return np.array(feature.float_list.value, dtype=np.float32)
        case "int64_list":
            return np.array(feature.int64_list.value, dtype=np.int64)
    return None


def features_of(features: Any) -> dict[str, Any]:
    """Features in the form that the parser gives: those of no kind are left out."""
    found = {name: value_of(feature) for name, feature in features.feature.items()}
    return {name: value for name, value in found.items() if value is not None}


def example_of(data: bytes) -> dict[str, Any]:
    """What protobuf reads from an Example. Raises google.protobuf.message.DecodeError."""
    return features_of(Example.FromString(data).features)


def sequence_of(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """What protobuf reads from a SequenceExample: context and feature lists."""
    message = SequenceExample.FromString(data)
    lists = message.feature_lists.feature_list.items()
    return features_of(message.context), {
        name: [value_of(step) if step.WhichOneof("kind") else [] for step in steps.feature]
        for name, steps in lists
    }


def same(ours: Any, theirs: Any) -> bool:
    """Equality in types and bits, so that NaN equals itself and 0.0 is not -0.0."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, np.ndarray):
        return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()
    return bool(ours == theirs)
