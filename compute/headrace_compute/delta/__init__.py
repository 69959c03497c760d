"""Delta tables: their layout, their log, and the commits that make versions.

layout.py         which table lies under which key, and with which columns
log.py            the Delta log as the JSON files it is
actions.py        what a version does, and its log file written by hand
swap.py           compare-and-swap: how every commit reaches the log
commits.py        one commit of parts, through deltalake
tables.py         versions of tables; import this one
appender.py       appends that follow the log version by version
receipts.py       what a commit shared by many small ingests says of each
request_index.py  which versions may hold a request
compaction.py     which small files to merge, and the commit that does it
maintenance.py    compaction and checkpoints as the workers run them
"""
