"""Objects: one interface to object stores, a local folder or S3.

keys.py       names of objects
interface.py  what a store must do: objects under keys, created once, durable before the call returns
local.py      objects in a local folder
s3.py         objects in the buckets of an S3 store
clients.py    the clients of an S3 store, and how long they wait
faults.py     maps an S3 store's error answers to our errors
preflight.py  checks of a store at every server start
spool.py      a staged stream, read back as one file
store.py      opens the store that a configuration names; import this one
"""
