"""Commands on rows going in: generate, upload, status, abort, validate, rejects, schema."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from headrace.cli.command import command
from headrace.cli.console import (
    DATA_REFUSED,
    LARGEST,
    TenantOption,
    answering,
    duration,
    given,
    input_of,
    moment,
    print_json,
    stdout,
)
from headrace.cli.output import ListOutput, Output
from headrace.cli.progress import rows_bar, transfer_bar
from headrace.cli.report import (
    facts_table,
    rejects_table,
    show_report,
    show_result,
    show_schema,
    show_upload,
    show_uploads,
)
from headrace.cli.server import Server
from headrace.encoding import Format
from headrace.row import DataType
from headrace.source import Compression
from headrace.v1 import upload_pb2, validation_pb2

REJECTS_SHOWN = 100
"""Rejects printed for people; programs get all."""

UPLOADS_SHOWN = 20
"""Uploads printed for people unless --limit says otherwise."""

Policy: TypeAlias = Literal["quarantine", "all_or_nothing"]
UnknownColumns: TypeAlias = Literal["ignore", "reject"]

FormatOption: TypeAlias = Annotated[
    Format | None,
    typer.Option(case_sensitive=False, help="Default by the file's name or first bytes, else csv."),
]
UnknownColumnsOption: TypeAlias = Annotated[
    UnknownColumns,
    typer.Option(case_sensitive=False, help="What columns outside the contract do: warn, or fail the call."),
]
FutureSkewOption: TypeAlias = Annotated[
    timedelta | None,
    typer.Option(
        parser=duration,
        metavar="DURATION",
        help="How far ahead of now a timestamp may lie, such as 90s, 12h or 3d. Default: 1d.",
    ),
]

TypeOption: TypeAlias = Annotated[
    DataType, typer.Option("--type", case_sensitive=False, help="What the rows are.")
]
InputFile: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help="CSV with a header line, or .jsonl; either as .gz or .zst. - is stdin.",
    ),
]
UploadFile: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help="CSV with a header or .jsonl, also .gz and .zst; .parquet; .arrow. A pipe is CSV; - is stdin.",
    ),
]
UploadId: TypeAlias = Annotated[str, typer.Argument(help="As upload printed it.")]

app = typer.Typer(rich_markup_mode=None)


@command(app, "generate")
def generate_command(
    output: Output,
    users: Annotated[int, typer.Option(min=1)] = 10_000,
    items: Annotated[int, typer.Option(min=1)] = 5_000,
    interactions: Annotated[int, typer.Option(min=1, help="Records of interactions.csv.")] = 100_000,
    to: Annotated[
        Path,
        typer.Option("--to", "-o", metavar="DIR", file_okay=False, help="For the files; made if absent."),
    ] = Path("sample"),
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST, help="Equal calls with equal seeds give equal files.")
    ] = 0,
    dirty: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Share of bad records; every reject code occurs.")
    ] = 0.0,
    end: Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="ISO8601", help="The 90 days before it are filled. Default: 2026-01-01."
        ),
    ] = None,
) -> None:
    """Make sample data: items.csv, interactions.csv, and expected.json.

    The last one has the counts that validation must find.

    Examples:
      headrace generate
      headrace generate --interactions 1000000 --dirty 0.02 -o dirty/
    """
    with answering(output.is_json), rows_bar("generating", interactions) as advance:
        # It takes pyarrow, without which the help is told all the same.
        from headrace.sample import DEFAULT_END, Sample, generate

        sample = Sample(users, items, interactions, seed, dirty, end or DEFAULT_END)
        made = generate(sample, to, advance)
    if output.is_json:
        files = {"items": made.items, "interactions": made.interactions, "expected": made.expected}
        print_json({"files": {name: str(path) for name, path in files.items()}, **made.counts})
        return
    facts: list[tuple[str, object]] = []
    for name, path in (("items", made.items), ("interactions", made.interactions)):
        counts = made.counts[name]
        facts.append(
            (str(path), f"{counts['rows_received']:,} records, {counts['rows_rejected']:,} of them bad")
        )
    stdout().print(facts_table("Sample data", [*facts, (str(made.expected), "what validation must count")]))


@command(app)
def upload(
    file: UploadFile,
    tenant: TenantOption,
    data_type: TypeOption,
    server: Server,
    output: Output,
    format: FormatOption = None,
    compression: Annotated[
        Compression | None,
        typer.Option(case_sensitive=False, help="Default by the file's name or first bytes, else none."),
    ] = None,
    policy: Annotated[
        Policy, typer.Option(case_sensitive=False, help="What bad rows do: are kept out, or refuse all.")
    ] = "quarantine",
    max_rejects: Annotated[
        int, typer.Option(min=0, max=LARGEST, help="More bad records than this refuse all. 0: no limit.")
    ] = 0,
    max_reject_ratio: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="A larger share of bad records refuses all. Default: no limit."),
    ] = None,
    unknown_columns: UnknownColumnsOption = "ignore",
    max_future_skew: FutureSkewOption = None,
    upload_id: Annotated[
        str, typer.Option(metavar="UUID", help="Go on with the upload that was begun with it, or repeat it.")
    ] = "",
) -> None:
    """Upload a file. Exit code 1 if its data was refused, or every row of it rejected.

    Should the server go away, the upload goes on by itself once it is back.

    Examples:
      headrace upload interactions.csv --tenant acme --type interactions
      headrace upload items.parquet --tenant acme --type items --policy all-or-nothing
      psql -c "COPY events TO STDOUT CSV HEADER" | headrace upload - --tenant acme --type interactions
    """
    started, label = time.monotonic(), f"uploading {file.name}"
    with answering(output.is_json), server.client() as client, transfer_bar(label) as show:
        result = client.upload(
            tenant,
            data_type,
            input_of(file),
            format=format,
            compression=compression,
            on_progress=show,
            **given(
                policy=policy,
                max_rejects=max_rejects,
                max_reject_ratio=max_reject_ratio,
                unknown_columns=unknown_columns,
                max_future_skew=max_future_skew,
                upload_id=upload_id,
            ),
        )
    if output.is_json:
        print_json(result)
    else:
        show_result(result, time.monotonic() - started)
    nothing_accepted = result.rows_received > 0 and result.rows_accepted == 0
    if result.outcome == upload_pb2.OUTCOME_REFUSED or nothing_accepted:
        raise typer.Exit(DATA_REFUSED)


@command(app)
def uploads(
    tenant: TenantOption,
    server: Server,
    output: ListOutput,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST, help="At most this many. Default: 20, for programs all."),
    ] = None,
) -> None:
    """List a tenant's uploads, the newest first.

    Examples:
      headrace uploads --tenant acme --limit 5
      headrace uploads --tenant acme --output csv > uploads.csv
    """
    with answering(output.is_json), server.client() as client:
        wanted = limit or (UPLOADS_SHOWN if output.is_for_people else 0)
        found = client.list_uploads(tenant, limit=wanted)
        output.write({}, "uploads", upload_pb2.UploadSummary, found, show_uploads)


@command(app)
def status(upload_id: UploadId, tenant: TenantOption, server: Server, output: Output) -> None:
    """Show where an upload stands, or what it ended with.

    Examples:
      headrace status 6f1c0a52-6f0a-4f57-9a53-0d1f0e8a7c11 --tenant acme
    """
    with answering(output.is_json), server.client() as client:
        found = client.get_upload(tenant, upload_id)
    if output.is_json:
        print_json(found)
    else:
        show_upload(found)


@command(app)
def abort(upload_id: UploadId, tenant: TenantOption, server: Server, output: Output) -> None:
    """Give an upload up that has not finished.

    Nothing of it is or will be visible.

    Examples:
      headrace abort 6f1c0a52-6f0a-4f57-9a53-0d1f0e8a7c11 --tenant acme
    """
    with answering(output.is_json), server.client() as client:
        client.abort_upload(tenant, upload_id)
    if output.is_json:
        print_json({"upload_id": upload_id})
    else:
        stdout().print(f"upload {upload_id} is aborted")


@command(app)
def validate(
    file: InputFile,
    data_type: TypeOption,
    server: Server,
    output: Output,
    format: FormatOption = None,
    unknown_columns: UnknownColumnsOption = "ignore",
    max_future_skew: FutureSkewOption = None,
) -> None:
    """Report on a file and store nothing. Exit code 1 if a row would be rejected.

    Examples:
      headrace validate interactions.csv --type interactions
      zcat items.jsonl.gz | headrace validate - --type items --format json-lines
    """
    options = given(reject_unknown_columns=unknown_columns == "reject", max_future_skew=max_future_skew)
    label = f"validating {file.name}"
    with answering(output.is_json), server.client() as client, transfer_bar(label) as show:
        report = client.validate(data_type, input_of(file), format=format, on_progress=show, **options)
    if output.is_json:
        print_json(report)
    else:
        show_report(report)
    if report.rows_rejected:
        raise typer.Exit(DATA_REFUSED)


@command(app)
def rejects(
    upload_id: UploadId,
    tenant: TenantOption,
    server: Server,
    output: ListOutput,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST - 1, help="At most this many. Default: 100, for programs all."),
    ] = None,
) -> None:
    """List the rows an upload kept out, and why.

    Examples:
      headrace rejects 6f1c0a52-6f0a-4f57-9a53-0d1f0e8a7c11 --tenant acme --limit 20
      headrace rejects 6f1c0a52-6f0a-4f57-9a53-0d1f0e8a7c11 --tenant acme --output csv > rejects.csv
    """
    shown = limit or REJECTS_SHOWN

    def show(first: Sequence[validation_pb2.Reject]) -> None:
        stdout().print(rejects_table(first[:shown], f"Rejects of {upload_id}"))
        if len(first) > shown:
            stdout().print(
                f"the first {shown:,}; --limit shows more, --json lists all, so does the table `rejects`"
            )

    with answering(output.is_json), server.client() as client:
        # One more than shown tells whether there are more.
        wanted = shown + 1 if output.is_for_people else limit or 0
        found = client.list_rejects(tenant, upload_id, limit=wanted)
        output.write({"upload_id": upload_id}, "rejects", validation_pb2.Reject, found, show)


@command(app)
def schema(
    data_type: Annotated[DataType, typer.Argument(metavar="TYPE", case_sensitive=False)],
    server: Server,
    output: ListOutput,
) -> None:
    """Show the data contract of interactions or items.

    CSV and Arrow have its columns; JSON has the rules of the record as a whole too.

    Examples:
      headrace schema interactions
      headrace schema items --json | jq '.columns[].name'
    """
    with answering(output.is_json), server.client() as client:
        found = client.get_schema(data_type)
        if output.is_json:
            print_json(found)
            return
        output.write({}, "columns", validation_pb2.ColumnSchema, found.columns, lambda _: show_schema(found))
