"""Where bytes rest: an object store, Parquet parts in it, Delta tables over the parts.

keys.py     names of objects
store.py    the seam: objects under keys, created once, durable before the call returns
local.py    the store in a local folder
parts.py    one Parquet file: written with exact statistics, read by row group
layout.py   which table lies under which key, and with which columns
log.py      the Delta log as the JSON files it is
commits.py  one commit: compare-and-swap on the Delta log
tables.py   versions of tables; the door to the three above
"""
