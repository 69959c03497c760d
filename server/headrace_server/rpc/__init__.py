"""What all calls share: streams, statuses, limits, checks of fields, messages, reflection."""
