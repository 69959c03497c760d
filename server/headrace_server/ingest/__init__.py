"""Small ingests: unary calls whose rows share commits."""
