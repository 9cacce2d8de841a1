"""Label selectors as Kubernetes writes them: ``worker=emails,queue in (a,b),!draft``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# The syntax of label keys and values: "Labels and Selectors" in the documentation of Kubernetes.
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_KEY = re.compile(rf"(?:(?=[^/]{{1,253}}/){_PREFIX}/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)\s*")


class BadSelector(ValueError):
    """The text is not a label selector; the message says where it is wrong."""


class Operator(Enum):
    """The operator of a requirement."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels fulfil it. A missing label is not among the values."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that must all be fulfilled; without any, everything matches."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read a selector.

        Raises:
            BadSelector: the text is not a selector.
        """
        return _Parser(text).selector()

    def matches(self, labels: Mapping[str, str], unknown: Collection[str] = ()) -> bool:
        """Whether labels fulfil it; requirements on ``unknown`` labels count as fulfilled."""
        return all(one.key in unknown or one.matches(labels) for one in self.requirements)

    def asked(self, key: str) -> frozenset[str]:
        """Return the values that it names for a label."""
        named = [one.values for one in self.requirements if one.key == key and one.operator is Operator.IN]
        return frozenset().union(*named)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [found[1] for found in _TOKEN.finditer(text)]
        self._tokens.reverse()

    def selector(self) -> Selector:
        if not self._tokens:
            return Selector()
        requirements = [self._requirement()]
        while self._next() == ",":
            self._take()
            requirements.append(self._requirement())
        if self._tokens:
            raise self._failure("',' or the end")
        return Selector(tuple(requirements))

    def _requirement(self) -> Requirement:
        if self._next() == "!":
            self._take()
            return Requirement(self._key(), Operator.DOES_NOT_EXIST)
        key = self._key()
        match self._next():
            case "" | ",":
                return Requirement(key, Operator.EXISTS)
            case "=" | "==":
                self._take()
                return Requirement(key, Operator.IN, frozenset({self._value()}))
            case "!=":
                self._take()
                return Requirement(key, Operator.NOT_IN, frozenset({self._value()}))
            case "in" | "notin" as word:
                self._take()
                return Requirement(key, Operator(word), self._values())
        raise self._failure("one of =, ==, !=, in, notin")

    def _key(self) -> str:
        if not _KEY.fullmatch(self._next()):
            raise self._failure("the name of a label")
        return self._take()

    def _value(self) -> str:
        """Read a value, which may be empty."""
        if self._next() in {"", ","}:
            return ""
        if not _VALUE.fullmatch(self._next()):
            raise self._failure("the value of a label")
        return self._take()

    def _values(self) -> frozenset[str]:
        self._expect("(")
        if self._next() == ")":
            raise self._failure("a value: the list is empty")
        values = {"" if self._next() == ")" else self._value()}
        while self._next() == ",":
            self._take()
            values.add("" if self._next() == ")" else self._value())
        self._expect(")")
        return frozenset(values)

    def _expect(self, symbol: str) -> None:
        if self._next() != symbol:
            raise self._failure(f"{symbol!r}")
        self._take()

    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _take(self) -> str:
        return self._tokens.pop()

    def _failure(self, wanted: str) -> BadSelector:
        found = repr(self._next()) if self._tokens else "the end"
        return BadSelector(f"unable to parse {self._text!r}: found {found}, expected {wanted}")
