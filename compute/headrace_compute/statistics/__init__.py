"""Statistics of the columns of a table, and the drift between two versions of it; docs/semantics.md.

Sketches of the parts of a table are merged, in any order and however the rows were cut, to the same bits.
"""
