"""Where bytes rest: an object store, Parquet parts in it, Delta tables over the parts.

keys.py     names of objects
objects.py  the seam: objects under keys, created once, durable before the call returns
local.py    objects in a local folder
s3.py       objects in the buckets of an S3 store
clients.py  the clients of an S3 store, and how long they wait
faults.py   what an S3 store answers instead, and which of our errors that is
retry.py    how long to go on asking
gate.py     what a store must show before a server trusts it
store.py    the door to the store that a configuration names
parts.py    one Parquet file: written with exact statistics, read by row group
layout.py   which table lies under which key, and with which columns
log.py      the Delta log as the JSON files it is
commits.py  one commit: compare-and-swap on the Delta log
tables.py   versions of tables; the door to the three above
"""
