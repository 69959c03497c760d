"""Explains why texts are not timestamps: those that `timestamps.py` has refused."""

import calendar
import re
import unicodedata
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.kernels.fault_keys import FIRST_UNIX, UNITS, find_keys

EXAMPLE = "write it as 2026-01-31T12:00:00Z"

FAULT_BYTES = 256
"""Of a text, as much as is looked at: longer ones are no timestamps whatever follows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIMITS = (10**11, 10**14, 10**17, 10**20)
"""Numbers below these are Unix times of such a unit: up to the year 5138."""

_NUMBER = re.compile(r"[+-]?(\d{1,20})(?:\.\d*)?")
_BASIC = re.compile(
    r"(\d{4})(\d\d)(\d\d)(?:[T ]?(\d\d)(\d\d)(\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?(?:\d\d)?)?)?", re.I
)
_DAY_MONTH = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d\d)(?!\d).*")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d)([.,]\d*)?)?")
_UNIX, _CONVERT = "looks like Unix", "Z); convert it to a date and time."
_NULLS = frozenset({"null", "none", "na", "n/a", "nan", "nat", "\\n", "-"})


def timestamp_faults(texts: pa.BinaryArray) -> pa.StringArray:
    """What messages say behind texts that are no timestamps; as `timestamp_fault`, which is slow, of each.

    Args:
        texts: As they were sent, none of them empty.
    """
    keys, units, seconds = find_keys(texts, FAULT_BYTES)
    keys = keys.dictionary_encode()
    faults = [timestamp_fault(key.decode("utf-8", "replace")) for key in keys.dictionary.to_pylist()]
    told = pa.array(faults, pa.string()).take(keys.indices)
    numbers = units > 0
    if not numbers.any():
        return told
    names = pa.DictionaryArray.from_arrays(pa.array(units[numbers] - 1), pa.array(UNITS)).dictionary_decode()
    moments = pc.replace_substring(
        pa.array(seconds[numbers]).view(pa.timestamp("s")).cast(pa.string()), " ", "T"
    )
    parts = [pa.scalar(f"{_UNIX} "), names, pa.scalar(" ("), moments, pa.scalar(_CONVERT), pa.scalar("")]
    return pc.replace_with_mask(told, pa.array(numbers), pc.binary_join_element_wise(*parts))


def timestamp_fault(text: str) -> str:
    """The end of a message about a text that is not a timestamp: the fault and the remedy, with a full stop.

    Args:
        text: As it was sent, bad bytes replaced.
    """
    if text != text.strip():
        return "has spaces at its ends; remove them."
    if text.lower() in _NULLS:
        return "is text, not a missing value; every row must have a timestamp."
    for find in (_foreign_fault, _basic_fault, _number_fault, _day_month_fault, _form_fault):
        if fault := find(text):
            return fault
    if not (date := _DATE.match(text)):
        return f"is not ISO 8601; {EXAMPLE}."
    return _date_fault(*map(int, date.groups())) or _rest_fault(text[date.end() :])


def _foreign_fault(text: str) -> str:
    """A digit or mark that only looks like one of ISO 8601's, as full-width ones do."""
    for character in text:
        if not character.isascii() and unicodedata.category(character) in ("Nd", "No", "Pd", "Po", "Sm"):
            name = unicodedata.name(character, "a character").lower()
            return (
                f'has "{character}" ({name}, U+{ord(character):04X}), not one of the plain digits and marks; '
                f"{EXAMPLE}."
            )
    return ""


def _basic_fault(text: str) -> str:
    """ISO 8601 without hyphens and colons; a number of other length is no date."""
    if not (found := _BASIC.fullmatch(text)) or len(text) in (10, 12, 13):
        return ""
    year, month, day = (int(part) for part in found.groups()[:3])
    if not 1900 <= year <= 2100 or _date_fault(year, month, day):
        return ""
    return "is in ISO 8601's basic format; write it with hyphens and colons, as 2026-01-31T12:00:00Z."


def _number_fault(text: str) -> str:
    if not (found := _NUMBER.fullmatch(text)):
        return ""
    number = int(found[1])
    for place, limit in enumerate(_LIMITS):
        if FIRST_UNIX <= number < limit:
            seconds = number // 1000**place
            try:
                moment = _EPOCH + timedelta(seconds=-seconds if text[0] == "-" else seconds)
            except OverflowError:
                break
            shown = moment.isoformat(timespec="seconds").removesuffix("+00:00")
            return f"{_UNIX} {UNITS[place]} ({shown}{_CONVERT}"
    return f"is a number; {EXAMPLE}."


def _day_month_fault(text: str) -> str:
    """A date whose year comes last."""
    if not (found := _DAY_MONTH.fullmatch(text)):
        return ""
    first, second = int(found[1]), int(found[3])
    if len(found[4]) == 2 or max(first, second) <= 12:
        fault = "does not tell whether the day or the month comes first"
    elif min(first, second) > 12 or max(first, second) > 31:
        fault = "names a day or month that does not exist"
    else:
        fault = f"has the {'day' if first > 12 else 'month'} first and the year last"
    return f"{fault}; write year-month-day, as 2026-01-31."


_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"\d{4}([/.])\d{1,2}\1\d{1,2}(?!\d).*"),
        "has a date without hyphens; write it as 2026-01-31.",
    ),
    (
        re.compile(r"\d{4}-(?:\d-\d{1,2}|\d\d-\d)(?!\d).*"),
        "has a month or day of one digit; write two, as in 2026-01-31.",
    ),
    (re.compile(r"\d{4}-\d\d"), "lacks the day; write it as 2026-01-31."),
    (re.compile(r"\d{4}-?W\d\d.*"), "is a date by its week; write year-month-day, as 2026-01-31."),
    (
        re.compile(r"\d{4}-\d{3}(?!\d).*"),
        "is a date by its day of the year; write year-month-day, as 2026-01-31.",
    ),
    (
        re.compile(r"[+-]?\d{5,}-\d\d-\d\d.*|[+-]\d{4}-\d\d-\d\d.*"),
        "has a year that is not from 0001 to 9999, in four digits; correct it.",
    ),
    (re.compile(r"\d\d?:\d\d.*"), f"lacks the date; {EXAMPLE}."),
    (
        re.compile(r".*[^\W\d_]{3,}.*\d{4}.*|\d.*[^\W\d_]{3,}.*\d.*", re.S),
        f"spells a month or day by name; {EXAMPLE}.",
    ),
)


def _form_fault(text: str) -> str:
    if _DATE.match(text) and not re.match(r"\d{4}-\d\d-\d\d\d", text):
        return ""
    return next((fault for form, fault in _FORMS if form.fullmatch(text)), "")


def _date_fault(year: int, month: int, day: int) -> str:
    if year < 1:
        return "has the year 0; years go from 0001 to 9999."
    if not 1 <= month <= 12:
        swapped = "; write the month before the day" if 1 <= day <= 12 and month <= 31 else "; correct it"
        return f"names month {month:02d}, which does not exist{swapped}."
    days = calendar.monthrange(year, month)[1]
    if not 1 <= day <= days:
        return f"names a day that does not exist: {year:04d}-{month:02d} has {days} days; correct it."
    return ""


def _rest_fault(rest: str) -> str:
    """What is wrong behind a good date."""
    if rest[:1] == "t":
        return "has a lower-case t; write T."
    if rest[:1] not in ("T", " ") or not rest[:1]:
        return f'has "{rest[:16]}" behind the date, where T or a space belongs; {EXAMPLE}.'
    clock = rest[1:]
    if not (found := _CLOCK.match(clock)):
        return f"has no time HH:MM behind the date; {EXAMPLE}, or the date alone."
    return _clock_fault(*found.groups()) or _offset_fault(clock[found.end() :])


def _clock_fault(hour: str, minute: str, second: str | None, fraction: str | None) -> str:
    if int(hour) == 24:
        return "has hour 24; write 00:00 of the next day."
    if int(hour) > 24 or int(minute) > 59 or int(second or 0) > 60:
        return "names a time of day that does not exist; hours go to 23, minutes and seconds to 59."
    if int(second or 0) == 60:
        return "has second 60, and leap seconds are not taken; write second 59."
    if fraction and fraction[0] == ",":
        return "has a comma in the fraction of a second; write a point."
    if fraction == ".":
        return "has a point without a fraction behind it; remove it."
    return ""


def _offset_fault(offset: str) -> str:
    bare = offset.strip()
    if not bare:
        return "is not in the years 1 to 9999; correct it."
    if re.match(r"[AaPp]\.?[Mm]", bare):
        return "is a time of the 12-hour clock; write hours from 00 to 23."
    named = re.fullmatch(r"(?:[Zz]|[+-][\d:]+)?\s?\[?([A-Za-z][A-Za-z0-9_/+-]*)\]?", bare)
    if named and named[1] not in ("Z", "z"):
        return f"ends with the name of a time zone ({named[1][:32]}); write Z or the offset, as +01:00."
    good = re.fullmatch(r"[Zz]|[+-]([01]\d|2[0-3])(?::?[0-5]\d)?", bare)
    if good and offset != bare:
        return "has a space before the offset; remove it."
    if good:
        return "is not in the years 1 to 9999 in UTC; correct it."
    return f'ends with "{offset[:16]}", which is not an offset; write Z, +HH, +HH:MM or +HHMM.'
