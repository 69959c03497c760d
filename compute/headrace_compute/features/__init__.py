"""Features: user and item tables, shard by shard, and the run that makes them."""
