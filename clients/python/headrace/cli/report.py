"""Reports, results and schemas as tables for people."""

from collections.abc import Container, Iterable, Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import JustifyMethod
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from headrace.cli.console import plain, stdout
from headrace.v1 import feature_pb2, run_pb2, statistics_pb2, table_pb2, upload_pb2, validation_pb2

SAMPLES_SHOWN = 3
"""Samples shown of each warning; the report holds up to 20."""

VALUES_SHOWN = 5
"""Most frequent values shown of a column; the statistics hold up to 100."""

_FIRST_STATISTICS = ("of", "nulls", "distinct", "drift", "mean", "stddev")
_OTHER_STATISTICS = ("min", "p5", "p50", "p95", "max")

TELLING_ROWS = 10_000
"""Below this number of rows a rate would measure the start-up, not the work."""

_OUTCOME_STYLES = {"COMMITTED": "bold green", "REFUSED": "bold red", "EMPTY": "bold yellow"}


def show_result(result: upload_pb2.UploadResult, elapsed_s: float | None = None) -> None:
    """Prints how an upload ended, in which time if that is known, and its report."""
    console = stdout()
    outcome = upload_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_")
    line = Text(outcome, style=f"bold {_OUTCOME_STYLES.get(outcome, '')}").append(
        f"  upload {result.upload_id}", "dim"
    )
    if result.refusal:
        line.append(": ").append(plain(result.refusal))
    console.print(line)
    if result.HasField("version"):
        console.print(plain(f"version {result.version} of {result.table_uri}"), soft_wrap=True)
    if result.rejects_uri:
        console.print(plain(f"rejects in {result.rejects_uri}"), soft_wrap=True)
    if elapsed_s is not None:
        console.print(pace(result.rows_received, "rows", elapsed_s))
    show_report(result.report)


def show_upload(found: upload_pb2.GetUploadResponse) -> None:
    """Prints where an upload stands, and its report if it has ended."""
    unit = "rows" if found.header.format == upload_pb2.FORMAT_ROWS else "bytes"
    facts: list[tuple[str, object]] = [
        ("state", upload_pb2.UploadState.Name(found.state).removeprefix("UPLOAD_STATE_")),
        ("data type", found.header.data_type),
        ("begun", _moment(found.create_time)),
        (f"safe {unit}", found.persisted_offset),
    ]
    stdout().print(facts_table(f"Upload {found.upload_id}", facts))
    if found.HasField("result"):
        show_result(found.result)


def pace(count: int, what: str, elapsed_s: float) -> str:
    """How much was done in which time, and the rate where it says something."""
    told = f"{count:,} {what} in {elapsed_s:.1f} s"
    return f"{told}, {count / elapsed_s:,.0f} {what}/s" if count >= TELLING_ROWS else told


def show_report(report: validation_pb2.Report) -> None:
    """Prints what validation found: counts, broken rules with samples, columns, warnings."""
    console = stdout()
    counts = _table("received", "accepted", "rejected", "of these duplicate", title="Rows", right=4)
    values = report.rows_received, report.rows_accepted, report.rows_rejected, report.rows_duplicate
    counts.add_row(*(f"{count:,}" for count in values))
    console.print(counts)
    if report.checks:
        console.print(_checks(report.checks))
        first = [sample for check in report.checks for sample in check.samples[:1]]
        console.print(rejects_table(first, "The first of each"))
    console.print(_columns(report.columns))
    show_warnings(report.warnings)


def show_splits(splits: Sequence[run_pb2.SplitResult]) -> None:
    """Prints what a sampling run wrote of each split; nothing without one."""
    if not splits:
        return
    numbers = ("positives", "negatives", "short", "user not in core", "item not in core")
    table = _table("split", "begins", *numbers, title="Splits", right=len(numbers))
    for split in splits:
        table.add_row(
            split.name,
            split.start.ToJsonString() if split.HasField("start") else "",
            *(f"{count:,}" for count in (split.positives, split.negatives, split.negatives_short)),
            *(f"{count:,}" for count in (split.positives_without_user, split.positives_without_item)),
        )
    stdout().print(table)


def show_warnings(warnings: Sequence[validation_pb2.Warning]) -> None:
    """Prints warnings, one below the other."""
    for warning in warnings:
        line = Text("warning ", style="yellow").append(warning.code, "bold yellow").append(" ")
        line.append(plain(warning.message))
        if warning.samples:
            line.append(plain(f" (e.g. {', '.join(warning.samples[:SAMPLES_SHOWN])})"))
        stdout().print(line)


def _checks(checks: Iterable[validation_pb2.Check]) -> Table:
    table = _table("column", "rule", "rows", "% of rows", "% of non-null", title="Broken rules", right=3)
    for check in checks:
        table.add_row(
            _column(check.column),
            check.code,
            f"{check.failing_rows:,}",
            f"{check.percent_of_rows:.2f}",
            f"{check.percent_of_non_null:.2f}",
        )
    return table


def rejects_table(rejects: Iterable[validation_pb2.Reject], title: str) -> Table:
    """Rejects as a table."""
    table = _table("row", "line", "column", "rule", "value", "what is wrong", title=title)
    for reject in rejects:
        line = str(reject.line) if reject.HasField("line") else ""
        value = plain(_short(reject.value))
        table.add_row(
            str(reject.row_number), line, _column(reject.column), reject.code, value, plain(reject.message)
        )
    return table


def _columns(summaries: Iterable[validation_pb2.ColumnSummary]) -> Table:
    table = _table("column", "nulls", "distinct ≈", "min", "max", "mean", title="Columns")
    for summary in summaries:
        table.add_row(
            summary.column,
            f"{summary.nulls:,}",
            f"{summary.distinct_approx:,}",
            plain(_short(summary.min)),
            plain(_short(summary.max)),
            f"{summary.mean:.4g}" if summary.HasField("mean") else "",
        )
    return table


def show_schema(schema: validation_pb2.GetSchemaResponse) -> None:
    """Prints the data contract of a data type."""
    table = _table("column", "type", "required", "rules", title=schema.data_type)
    for column in schema.columns:
        rules = "\n".join(f"{rule.code}: {rule.description}" for rule in column.rules)
        table.add_row(column.name, column.type, "yes" if column.required else "", rules)
    table.add_section()
    table.add_row("(record)", "", "", "\n".join(f"{rule.code}: {rule.description}" for rule in schema.rules))
    stdout().print(table)


def show_features(features: Sequence[feature_pb2.Feature]) -> None:
    """Prints what features there are, a table for each that they are columns of."""
    for name in dict.fromkeys(feature.table for feature in features):
        table = _table("column", "type", "family", "unit", "meaning", title=name)
        for feature in features:
            if feature.table == name:
                null = f" Null when {feature.null_when}." if feature.null_when else ""
                table.add_row(
                    feature.name, feature.type, feature.family, feature.unit, feature.meaning + null
                )
        stdout().print(table)


def show_statistics(found: statistics_pb2.GetFeatureStatisticsResponse) -> None:
    """Prints the statistics of a version's columns, their drift, and their most frequent values."""
    version, drift = found.version, {each.column: each for each in found.drift}
    title = f"{version.table} version {version.version}, {version.rows:,} rows"
    if found.HasField("baseline"):
        title += f"; drift from version {found.baseline.version}"
    rows: list[dict[str, str]] = []
    for column in found.columns:
        quantiles = {each.probability: each.value for each in column.quantiles}
        distinct = f"{'≈' if column.distinct_error else ''}{column.distinct:,}"
        numbers = {
            "mean": column.mean,
            "stddev": column.stddev,
            "min": column.minimum,
            **{f"p{round(100 * p)}": quantiles.get(p) for p in (0.05, 0.5, 0.95)},
            "max": column.maximum,
        }
        rows.append(
            {
                "column": column.column,
                "of": "days" if column.measure == "age" else column.measure,
                "nulls": f"{column.nulls:,}",
                "distinct": distinct if column.HasField("distinct") else "",
                "drift": f"{drift[column.column].value:.3f}" if column.column in drift else "",
                **{name: f"{number:.4g}" if quantiles else "" for name, number in numbers.items()},
            }
        )
    _print_statistics(title, rows)
    values = _table("column", "values", title=f"Values of {version.table}", whole=("column",))
    for column in found.columns:
        if column.top_values:
            most = sorted(column.top_values, key=lambda each: each.count, reverse=True)[:VALUES_SHOWN]
            values.add_row(
                column.column, plain(", ".join(f"{_short(each.value)} ({each.count:,})" for each in most))
            )
    if values.row_count:
        stdout().print(values)


def _print_statistics(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Prints them as one table, or where that is too wide as two: digits that were cut off would mislead."""
    console = stdout()

    def table_of(names: Sequence[str]) -> Table:
        right = len(names) - ("of" in names)
        table = _table("column", *names, title=title, right=right, whole=("column", "of"))
        for row in rows:
            table.add_row(row["column"], *(row[name] for name in names))
        return table

    whole = table_of((*_FIRST_STATISTICS, *_OTHER_STATISTICS))
    # Measured as if there were room, as nothing measures wider than its console.
    room = console.options.update(width=10 * console.width)
    fits = console.measure(whole, options=room).maximum <= console.width
    for table in [whole] if fits else map(table_of, (_FIRST_STATISTICS, _OTHER_STATISTICS)):
        console.print(table)


def show_uploads(uploads: Sequence[upload_pb2.UploadSummary]) -> None:
    """Prints uploads, one a line."""
    names = ("upload id", "type", "state", "begun", "version", "received", "rejected")
    shown = _table(*names, title="Uploads", right=3, whole=("upload id",))
    for upload in uploads:
        state = upload_pb2.UploadState.Name(upload.state).removeprefix("UPLOAD_STATE_")
        is_done = upload.state == upload_pb2.UPLOAD_STATE_DONE
        shown.add_row(
            upload.upload_id,
            upload.data_type,
            upload_pb2.Outcome.Name(upload.outcome).removeprefix("OUTCOME_") if is_done else state,
            _moment(upload.create_time),
            str(upload.version) if upload.HasField("version") else "",
            f"{upload.rows_received:,}" if is_done else "",
            f"{upload.rows_rejected:,}" if is_done else "",
        )
    stdout().print(shown)


def show_tables(tables: Sequence[table_pb2.Table]) -> None:
    """Prints what tables there are."""
    shown = _table("table", "version", "rows", "bytes", "files", "updated", "where", title="Tables")
    for table in tables:
        updated = _moment(table.update_time)
        size = decimal(table.size_bytes)
        shown.add_row(
            table.name,
            str(table.version),
            f"{table.rows:,}",
            size,
            str(table.files),
            updated,
            plain(table.uri),
        )
    stdout().print(shown)


def show_runs(runs: Sequence[run_pb2.Run]) -> None:
    """Prints runs, one a line."""
    names = ("request id", "kind", "state", "stage", "done", "started", "ended")
    shown = _table(*names, title="Runs", whole=("request id",))
    for run in runs:
        shown.add_row(
            run.request_id or Text("ends with its call", style="dim"),
            run.kind,
            _run_state(run),
            run.progress.stage,
            _run_done(run),
            _moment(run.start_time),
            _moment(run.end_time) if run.HasField("end_time") else "",
        )
    stdout().print(shown)


def show_run(run: run_pb2.Run) -> None:
    """Prints where a run stands, and what it wrote or failed with."""
    facts: list[tuple[str, object]] = [
        ("kind", run.kind),
        ("state", _run_state(run)),
        ("stage", f"{run.progress.stage} {_run_done(run)}".strip()),
        ("started", _moment(run.start_time)),
        ("attempts", run.attempts),
        ("run id", run.run_id),
    ]
    if run.HasField("end_time"):
        facts.append(("ended", _moment(run.end_time)))
    if run.HasField("error"):
        facts.append(("error", run.error.message))
    stdout().print(facts_table(f"Run {run.request_id}", facts))
    if run.HasField("features"):
        stdout().print(versions_table(run.features.inputs, run.features.outputs))
    elif run.HasField("negatives"):
        stdout().print(negatives_versions(run.negatives))


def _run_state(run: run_pb2.Run) -> str:
    return run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_")


def _run_done(run: run_pb2.Run) -> str:
    progress = run.progress
    if progress.queue_place and run.state == run_pb2.RUN_STATE_QUEUED:
        return f"place {progress.queue_place}"
    return f"{progress.shards_done}/{progress.shards_total}" if progress.shards_total else ""


def _moment(time: Timestamp) -> str:
    return time.ToDatetime().isoformat(sep=" ", timespec="seconds")


def negatives_versions(result: run_pb2.NegativesResult) -> Table:
    """The table versions that a sampling run read and wrote."""
    of_ids = [result.users, result.items] if result.HasField("users") else []
    return versions_table(result.inputs, [result.output, *of_ids])


def versions_table(inputs: Iterable[run_pb2.TableVersion], outputs: Iterable[run_pb2.TableVersion]) -> Table:
    """The table versions a run read and wrote."""
    table = _table("", "table", "version", "rows", "where", title="Tables")
    for word, versions in (("read", inputs), ("wrote", outputs)):
        for version in versions:
            table.add_row(
                word, version.table, str(version.version), f"{version.rows:,}", plain(version.table_uri)
            )
    return table


def facts_table(title: str, facts: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, plain(_fact(value)))
    return table


def _table(*columns: str, title: str, right: int = 0, whole: Container[str] = ()) -> Table:
    """An empty table.

    Args:
        columns: Their names.
        right: So many, the last ones, hold numbers.
        whole: Columns whose values are never broken over lines.
    """
    numeric = {"row", "line", "rows", "nulls", "distinct ≈", "mean", "version", "bytes", "files"}
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        is_number = column in numeric or number >= len(columns) - right
        justify: JustifyMethod = "right" if is_number else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    return table


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _column(name: str) -> Text:
    return plain(name) if name else Text("(record)", style="dim")


def _short(value: str, limit: int = 32) -> str:
    return value if len(value) <= limit else value[: limit - 1] + "…"
