"""The features, a module for each family: `features(params)` gives what it has.

Whoever adds a feature adds it to one of them and a test; whoever adds a family, to the registry's list too.
"""
