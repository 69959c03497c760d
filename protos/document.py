"""Writes the reference of the contract from its files: `python protos/document.py > docs/api.md`.

All words are comments of the proto files; whoever wants to change one changes it there.
"""

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.rpc import code_pb2
from grpc_tools import protoc

from headrace.v1 import error_traits_pb2

PROTOS = Path(__file__).resolve().parent
PACKAGE = "headrace.v1"
REASONS, REASON = "ErrorReason", "ERROR_REASON_"

HEAD = """\
# API reference

Written by `make docs` from the comments of [protos/headrace/v1](../protos/headrace/v1). What no single
field tells is in [protocol.md](protocol.md), what rows and numbers mean in [semantics.md](semantics.md), and
each call as a line for grpcurl in [grpcurl.md](grpcurl.md).

- [Calls](#calls)
- [Messages](#messages)
- [Enums](#enums)
- [Error reasons](#error-reasons)
"""

REASONS_HEAD = """\
A failed call carries one of them in `google.rpc.ErrorInfo.reason`, with the domain `headrace`. Code, HTTP
status and whether the same call may succeed later are the option `error_traits` of its enum value, so that
programs in any language can read them.
"""

Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {value: name.removeprefix("TYPE_").lower() for name, value in Field.Type.items()}


@dataclass(frozen=True)
class Comments:
    """The comments of a file, by the path of what they belong to."""

    by_path: Mapping[tuple[int, ...], str]

    @classmethod
    def of(cls, file: descriptor_pb2.FileDescriptorProto) -> "Comments":
        """Those before each declaration."""
        return cls({tuple(each.path): each.leading_comments for each in file.source_code_info.location})

    def text(self, *path: int) -> str:
        """A comment as one paragraph."""
        return " ".join(self.by_path[path].split())


def main() -> None:
    """Prints the reference."""
    print(reference(), end="")


def reference() -> str:
    """The whole document."""
    files = [(file, Comments.of(file)) for file in compiled()]
    parts = [
        [HEAD, "## Calls", ""],
        *(calls(file, comments) for file, comments in files),
        ["## Messages", ""],
        *(messages(file, comments) for file, comments in files),
        ["## Enums", ""],
        *(enums(file, comments) for file, comments in files),
        ["## Error reasons", "", REASONS_HEAD],
        *(reasons(file, comments) for file, comments in files),
    ]
    return "\n".join(line for part in parts for line in part).rstrip("\n") + "\n"


def compiled() -> list[descriptor_pb2.FileDescriptorProto]:
    """The files of the contract with their comments, by name; raises SystemExit on an error."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "headrace").rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile() as image:
        includes = [f"-I{PROTOS}", f"-I{PROTOS / 'third_party'}", f"-I{well_known}"]
        output = ["--include_source_info", f"--descriptor_set_out={image.name}"]
        status = protoc.main(["protoc", *includes, *output, *sources])
        if status != 0:
            sys.exit(status)
        found = descriptor_pb2.FileDescriptorSet.FromString(image.read())
    return list(found.file)


def calls(file: descriptor_pb2.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    """The methods of a file's services."""
    for place, service in enumerate(file.service):
        yield from (comments.text(6, place), "")
        for number, method in enumerate(service.method):
            yield from (f"### {method.name}", "", comments.text(6, place, 2, number), "")
            request = _stream(method.client_streaming) + _type(method.input_type)
            response = _stream(method.server_streaming) + _type(method.output_type)
            yield f"- gRPC: `/{PACKAGE}.{service.name}/{method.name}`, {request} → {response}"
            for rule in _rules(method.options.Extensions[annotations_pb2.http]):
                yield f"- HTTP: {rule}"
            yield ""


def messages(file: descriptor_pb2.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    """The messages of a file, each with a table of its fields."""
    for place, message in enumerate(file.message_type):
        yield from (f"### {message.name}", "", comments.text(4, place), "")
        entries = {f".{PACKAGE}.{message.name}.{entry.name}": entry for entry in message.nested_type}
        if message.field:
            yield from ("| field | type | |", "|---|---|---|")
        for number, field in enumerate(message.field):
            text = comments.text(4, place, 2, number)
            if field.HasField("oneof_index") and not field.proto3_optional:
                text = f"One of `{message.oneof_decl[field.oneof_index].name}`. {text}"
            yield f"| `{field.name}` = {field.number} | {_field_type(field, entries)} | {_cell(text)} |"
        yield ""


def enums(file: descriptor_pb2.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    """The enums of a file but for that of reasons, which have a chapter of their own."""
    for place, enum in enumerate(file.enum_type):
        if enum.name == REASONS:
            continue
        yield from (f"### {enum.name}", "", comments.text(5, place), "", "| value | |", "|---|---|")
        for number, value in enumerate(enum.value):
            yield f"| `{value.name}` = {value.number} | {_cell(comments.text(5, place, 2, number))} |"
        yield ""


def reasons(file: descriptor_pb2.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    """The table of error reasons."""
    for place, enum in enumerate(file.enum_type):
        if enum.name != REASONS:
            continue
        yield from ("| reason | code | HTTP | retry | |", "|---|---|---|---|---|")
        for number, value in enumerate(enum.value):
            traits = value.options.Extensions[error_traits_pb2.error_traits]
            if not traits.http_status:
                continue  # UNSPECIFIED, which is never sent.
            code = code_pb2.Code.Name(traits.code)
            text = comments.text(5, place, 2, number).removeprefix(f"{code}: ")
            text = text[0].upper() + text[1:]
            name, retry = value.name.removeprefix(REASON), "yes" if traits.retryable else "no"
            yield f"| `{name}` | {code} | {traits.http_status} | {retry} | {_cell(text)} |"
        yield ""


def _rules(rule: http_pb2.HttpRule) -> Iterable[str]:
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        return
    body = f", body: `{rule.body}`" if rule.body else ""
    yield f"{pattern.upper()} `{getattr(rule, pattern)}`{body}"
    for other in rule.additional_bindings:
        yield from _rules(other)


def _field_type(field: Field, entries: Mapping[str, descriptor_pb2.DescriptorProto]) -> str:
    if entry := entries.get(field.type_name):
        key, value = entry.field
        return f"map of {_field_type(key, {})} to {_field_type(value, {})}"
    name = _type(field.type_name) if field.type_name else SCALARS[field.type]
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _type(name: str) -> str:
    """A type; one of ours leads to where it is described."""
    name = name.removeprefix(".")
    short = name.removeprefix(f"{PACKAGE}.")
    if short == REASONS:
        return f"[{short}](#error-reasons)"
    return f"`{name}`" if short == name else f"[{short}](#{short.lower()})"


def _stream(is_stream: bool) -> str:
    return "stream of " if is_stream else ""


def _cell(text: str) -> str:
    """A text in a table, where a bar would end it, and what is in angle brackets vanish."""
    return re.sub(r"<(?=\w)", r"\\<", text.replace("|", r"\|"))


if __name__ == "__main__":
    main()
