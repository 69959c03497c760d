"""Events: what became visible, told to whoever wants to know."""
