"""Commands on rows going in: generate, upload, status, abort, validate, rejects, schema."""

import sys
import time
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from headrace.cli.console import (
    DATA_REFUSED,
    LARGEST,
    AddressOption,
    JsonOption,
    TenantOption,
    answering,
    duration,
    given,
    input_of,
    moment,
    print_json,
    stdout,
)
from headrace.cli.document import document, write_array
from headrace.cli.progress import rows_bar, transfer_bar
from headrace.cli.report import (
    facts_table,
    rejects_table,
    show_report,
    show_result,
    show_schema,
    show_upload,
)
from headrace.client import Client
from headrace.connection import DEFAULT_ADDRESS
from headrace.encoding import Format
from headrace.row import DataType
from headrace.sample import DEFAULT_END, Sample, generate
from headrace.source import Compression
from headrace.v1 import upload_pb2

REJECTS_SHOWN = 100
"""Rejects printed for people; --json prints all."""

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

app = typer.Typer()


@app.command("generate")
def generate_command(
    users: Annotated[int, typer.Option(min=1)] = 10_000,
    items: Annotated[int, typer.Option(min=1)] = 5_000,
    interactions: Annotated[int, typer.Option(min=1, help="Records of interactions.csv.")] = 100_000,
    output: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the files; made if absent.")
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
    as_json: JsonOption = False,
) -> None:
    """Make sample data: items.csv, interactions.csv, and expected.json with the counts to expect."""
    with answering(as_json), rows_bar("generating", interactions) as advance:
        sample = Sample(users, items, interactions, seed, dirty, end or DEFAULT_END)
        made = generate(sample, output, advance)
    if as_json:
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


@app.command()
def upload(
    file: UploadFile,
    tenant: TenantOption,
    data_type: TypeOption,
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
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Upload a file. Exit code 1 if its data was refused, or every row of it rejected.

    Should the server go away, the upload goes on by itself once it is back.
    """
    started = time.monotonic()
    with answering(as_json), Client(address) as client, transfer_bar(f"uploading {file.name}") as show:
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
    if as_json:
        print_json(result)
    else:
        show_result(result, time.monotonic() - started)
    nothing_accepted = result.rows_received > 0 and result.rows_accepted == 0
    if result.outcome == upload_pb2.OUTCOME_REFUSED or nothing_accepted:
        raise typer.Exit(DATA_REFUSED)


@app.command()
def status(
    upload_id: UploadId,
    tenant: TenantOption,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Show where an upload stands, or what it ended with."""
    with answering(as_json), Client(address) as client:
        found = client.get_upload(tenant, upload_id)
    if as_json:
        print_json(found)
    else:
        show_upload(found)


@app.command()
def abort(
    upload_id: UploadId,
    tenant: TenantOption,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Give an upload up that has not finished: nothing of it is or will be visible."""
    with answering(as_json), Client(address) as client:
        client.abort_upload(tenant, upload_id)
    if as_json:
        print_json({"upload_id": upload_id})
    else:
        stdout().print(f"upload {upload_id} is aborted")


@app.command()
def validate(
    file: InputFile,
    data_type: TypeOption,
    format: FormatOption = None,
    unknown_columns: UnknownColumnsOption = "ignore",
    max_future_skew: FutureSkewOption = None,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Report on a file and store nothing. Exit code 1 if a row would be rejected."""
    options = given(reject_unknown_columns=unknown_columns == "reject", max_future_skew=max_future_skew)
    with answering(as_json), Client(address) as client, transfer_bar(f"validating {file.name}") as show:
        report = client.validate(data_type, input_of(file), format=format, on_progress=show, **options)
    if as_json:
        print_json(report)
    else:
        show_report(report)
    if report.rows_rejected:
        raise typer.Exit(DATA_REFUSED)


@app.command()
def rejects(
    upload_id: UploadId,
    tenant: TenantOption,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST - 1, help="At most this many. Default: 100, with --json all."),
    ] = None,
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """List the rows an upload kept out, and why."""
    shown = limit or REJECTS_SHOWN
    with answering(as_json), Client(address) as client:
        if as_json:
            found = client.list_rejects(tenant, upload_id, limit=limit or 0)
            write_array(sys.stdout, {"upload_id": upload_id}, "rejects", map(document, found))
            return
        # One more than shown tells whether there are more.
        first = list(client.list_rejects(tenant, upload_id, limit=shown + 1))
    stdout().print(rejects_table(islice(first, shown), f"Rejects of {upload_id}"))
    if len(first) > shown:
        stdout().print(
            f"the first {shown:,}; --limit shows more, --json lists all, so does the table `rejects`"
        )


@app.command()
def schema(
    data_type: Annotated[DataType, typer.Argument(metavar="TYPE", case_sensitive=False)],
    address: AddressOption = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Show the data contract of interactions or items."""
    with answering(as_json), Client(address) as client:
        found = client.get_schema(data_type)
    if as_json:
        print_json(found)
    else:
        show_schema(found)
