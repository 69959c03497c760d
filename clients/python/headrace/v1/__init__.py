"""The generated stubs of headrace.v1."""
