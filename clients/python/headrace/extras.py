"""What the SDK can do with packages that it does not bring: extras, and the error where one is missing."""

from importlib import import_module
from types import ModuleType


class MissingExtraError(ImportError):
    """A call needs a package of an extra that is not installed.

    Attributes:
        extra: Its name, as in `pip install 'headrace[arrow]'`.
    """

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"This needs {package}, which is not installed; install it by `pip install 'headrace[{extra}]'`.",
            name=package,
        )
        self.extra = extra

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str | None]]:
        return type(self), (self.extra, self.name)


def require(package: str) -> ModuleType:
    """A package that has an extra of its own name.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(package, package) from error
