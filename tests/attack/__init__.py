"""The attack: callers who mean harm to one server, and what another tenant notices of it meanwhile.

`make attack` runs everything once and prints what each attack cost.
"""
