"""The kernels that compare and order rows, against Python's own words for it."""

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.distinct import PRECISION, RANKS, REGISTERS
from headrace_compute.kernels.extremes import extremes
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.kernels.rows import clustered
from headrace_compute.kernels.sketch import sketch_of

texts = st.lists(st.text("ab\x00\x7fäb€", max_size=40) | st.text(max_size=12) | st.none(), max_size=60)
hashes = st.lists(st.sampled_from(range(8)) | st.integers(0, 2**64 - 1), max_size=200)


@given(texts)
def test_the_least_and_the_greatest_text_are_told_by_their_bytes(values: list[str | None]) -> None:
    there = [value for value in values if value]
    valid = np.array([bool(value) for value in values], np.bool_)
    array = pa.array(values, pa.string())
    found = extremes(array, valid)
    assert (found is None) == (not there)
    if found:
        lowest, highest = (array[place].as_py() for place in found)
        assert (lowest, highest) == (min(there, key=str.encode), max(there, key=str.encode))


@given(texts)
def test_strings_hash_as_published(values: list[str | None]) -> None:
    expected = [xxhash.xxh64_intdigest((value or "").encode()) for value in values]
    assert xxh64_strings(pa.array(values, pa.string())).tolist() == expected


@given(hashes)
def test_rows_are_clustered_by_bucket_then_by_the_first_row_of_their_hash(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    buckets = bucket_of(array)
    first = [values.index(value) for value in values]
    expected = sorted(range(len(values)), key=lambda i: (buckets[i], first[i], i))
    assert clustered(array).tolist() == expected


@given(hashes)
def test_a_sketch_keeps_the_highest_rank_of_each_register(values: list[int]) -> None:
    expected = bytearray(REGISTERS)
    for value in values:
        rest = (value << PRECISION) % 2**64
        rank = min(64 - rest.bit_length(), RANKS) + 1
        expected[value >> RANKS] = max(expected[value >> RANKS], rank)
    assert sketch_of(np.array(values, np.uint64), np.ones(len(values), np.bool_)) == bytes(expected)
