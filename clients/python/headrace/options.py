"""Options of calls, by name."""

from collections.abc import Mapping


def check_options(options: Mapping[str, object], known: type) -> None:
    """Refuses unknown options: a typo must not commit data that the option was meant to refuse.

    Args:
        options: What was given.
        known: The TypedDict that names what there is.

    Raises:
        TypeError: There is no such option.
    """
    if unknown := sorted(options.keys() - known.__annotations__.keys()):
        raise TypeError(
            f"Unknown option {unknown[0]!r}; expected one of {', '.join(sorted(known.__annotations__))}."
        )
