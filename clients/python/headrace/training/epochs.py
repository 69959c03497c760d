"""What is read of a training set, and where in which epoch a trainer stands. No I/O happens here."""

from collections.abc import Mapping
from typing import Any, Unpack

from headrace.arrow import pa
from headrace.options import TrainingOptions, check_options
from headrace.read import TableReader
from headrace.training.order import Order, Slot
from headrace.v1 import table_pb2

BATCH_ROWS = 4_096
"""Rows of a batch unless told otherwise."""

SPLITS = ("train", "valid", "test")
"""In the order in which they follow each other."""

_LARGEST_SEED = (1 << 64) - 1


class Epochs:
    """Epochs of one version of a training set, and where in them a trainer stands.

    Args:
        tenant, dataset: Which.
        options: How it is read.

    Attributes:
        epoch: The one that is under way, from 0.
    """

    def __init__(self, tenant: str, dataset: str, **options: Unpack[TrainingOptions]) -> None:
        check_options(options, TrainingOptions)
        _check(options)
        self.epoch = 0
        self._position = 0
        self._rows = 0
        self._splits: dict[str, int] = {}
        self._options = options
        self._question = table_pb2.ReadTableRequest(
            tenant_id=tenant,
            table=dataset,
            version=options.get("version"),
            columns=options.get("columns") or (),
            encoding=table_pb2.ROW_ENCODING_ARROW_IPC,
            split=options.get("split") or "",
        )

    @property
    def version(self) -> int:
        """The version that is read."""
        return self._question.version

    @property
    def rows(self) -> int:
        """Rows of the version, or of its split; those of all ranks."""
        return self._rows

    @property
    def splits(self) -> Mapping[str, int]:
        """Rows of each split of the version; empty if it has no splits."""
        return self._splits

    def __len__(self) -> int:
        """Batches of an epoch, of this rank."""
        return self._order().batches

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch, from 0."""
        self.epoch, self._position = epoch, 0

    def advance(self) -> None:
        """Counts a batch as handed out. With the last one the next epoch begins."""
        self._position += 1
        if self._position >= len(self):
            self.set_epoch(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands, as JSON may hold it: batches that were handed out are done.

        Ranks that have as many batches done have the same state.
        """
        return {
            "version": self.version,
            "epoch": self.epoch,
            "position": self._position,
            **self._identity(),
        }

    def _opening(self, version: int | None = None) -> TableReader:
        """The read that tells what there is, in another version if one is named."""
        question = self._ask(0, 1)
        if version is not None:
            question.version = version
        return TableReader(question)

    def _opened(self, reader: TableReader) -> None:
        """Pins the version, and learns how many rows there are.

        Raises:
            ValueError: They are not whole groups.
        """
        started = reader.started
        assert started is not None
        split, group_rows = self._question.split, self._options.get("group_rows", 1)
        rows = started.split_rows[split] if split else started.rows
        if rows % group_rows:
            raise ValueError(
                f"There are {rows:,} rows, which are no groups of {group_rows}: some positives have fewer "
                "negatives than others. Leave group_rows out, and tell groups apart by group_id."
            )
        self._question.version, self._rows = started.version, rows
        self._splits = {name: started.split_rows[name] for name in SPLITS if name in started.split_rows}

    def _reader(self, first: int, rows: int) -> TableReader:
        """A read of rows that follow each other in the table, or in its split."""
        return TableReader(self._ask(first, rows), is_known=True)

    def _turn(self, worker: int, workers: int) -> range:
        """What one of several workers makes of what is left of this epoch; the first makes the next batch."""
        return range(self._position + worker, len(self), workers)

    def _is_elsewhere(self, state: Mapping[str, Any]) -> bool:
        """Whether another version must be opened to go to where a trainer stood.

        Raises:
            ValueError: It read something else, or in another order.
        """
        for name, mine in self._identity().items():
            if (saved := state.get(name)) != mine:
                raise ValueError(
                    f"The state was saved with {name} = {saved!r}, and here {name} is {mine!r}, with which "
                    f"batches are others; read with {name} = {saved!r}."
                )
        return bool(state["version"] != self.version)

    def _go_to(self, state: Mapping[str, Any]) -> None:
        """Goes to where a trainer stood, once its version is open."""
        self.epoch, self._position = state["epoch"], state["position"]

    def _order(self) -> Order:
        """The order of the epoch that is under way."""
        options = self._options
        return Order(
            rows=self._rows,
            batch_rows=options.get("batch_rows", BATCH_ROWS),
            unit_rows=options.get("group_rows", 1),
            seed=options.get("shuffle_seed"),
            epoch=self.epoch,
            rank=options.get("rank", 0),
            ranks=options.get("ranks", 1),
            even=options.get("even_ranks", False),
        )

    def _identity(self) -> dict[str, Any]:
        """What decides which rows a batch of an epoch of a version has, but for the rank."""
        order = self._order()
        return {
            "tenant": self._question.tenant_id,
            "dataset": self._question.table,
            "split": self._question.split or None,
            "shuffle_seed": order.seed,
            "batch_rows": order.batch_rows,
            "group_rows": order.unit_rows,
            "ranks": order.ranks,
            "even_ranks": order.even,
        }

    def _ask(self, first: int, rows: int) -> table_pb2.ReadTableRequest:
        question = table_pb2.ReadTableRequest()
        question.CopyFrom(self._question)
        question.offset, question.limit = first, rows
        return question


class Lanes:
    """The window of each lane that batches are cut from."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, pa.RecordBatch]] = {}

    def lack(self, slot: Slot) -> bool:
        """Whether the window of a batch must come first; what the lane had is over then."""
        number, _ = self._held.get(slot.lane, (None, None))
        if number == slot.window:
            return False
        self._held.pop(slot.lane, None)
        return True

    def keep(self, slot: Slot, rows: pa.RecordBatch) -> None:
        """Takes a window's rows, in the window's order."""
        self._held[slot.lane] = slot.window, rows

    def batch(self, slot: Slot) -> pa.RecordBatch:
        """A batch's rows."""
        _, rows = self._held[slot.lane]
        return rows.slice(slot.first, slot.rows)


def _check(options: TrainingOptions) -> None:
    batch_rows, group_rows = options.get("batch_rows", BATCH_ROWS), options.get("group_rows", 1)
    rank, ranks, seed = options.get("rank", 0), options.get("ranks", 1), options.get("shuffle_seed")
    if group_rows < 1 or batch_rows < 1 or batch_rows % group_rows:
        raise ValueError(
            f"batch_rows is {batch_rows} and group_rows {group_rows}; a batch has one or more whole groups, "
            "so batch_rows must be a multiple of group_rows, and that 1 or more."
        )
    if not 0 <= rank < ranks:
        raise ValueError(f"rank is {rank} of {ranks} ranks; it must be 0 to {max(0, ranks - 1)}.")
    if seed is not None and not 0 <= seed <= _LARGEST_SEED:
        raise ValueError(f"shuffle_seed is {seed}; it must be 0 to 2^64 - 1.")
