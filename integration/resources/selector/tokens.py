"""Text → tokens. Blanks are space and tab; a line feed is an error, as in Calico."""

from __future__ import annotations

import re
from dataclasses import dataclass

BLANKS = r"[ \t]*"
LABEL_CHARACTER = r"[a-zA-Z0-9_./-]"
LABEL = re.compile(rf"{LABEL_CHARACTER}{{1,512}}(?!{LABEL_CHARACTER})")

# Words are operators only right after a label, and then only whole: `in in {"x"}` asks for a label called `in`.
OPERATORS = {
    name: re.compile(words + rf"(?!{LABEL_CHARACTER})")
    for name, words in {
        "contains": "contains",
        "starts with": rf"starts{BLANKS}with",
        "ends with": rf"ends{BLANKS}with",
        "not in": rf"not{BLANKS}in",
        "in": "in",
    }.items()
}
# Functions need the parenthesis right after the name: `has` alone is a label.
FUNCTIONS = {
    "has": re.compile(rf"has\({BLANKS}(?P<label>{LABEL_CHARACTER}{{1,512}}){BLANKS}\)"),
    "all": re.compile(rf"all\({BLANKS}\)"),
    "global": re.compile(rf"global\({BLANKS}\)"),
}
FUNCTION_NAME = re.compile(r"(has|all|global)\(")
SIGNS = ("==", "!=", "&&", "||", "!", "(", ")", "{", "}", ",")


class SelectorError(ValueError):
    """A selector that cannot be read: what is wrong, and at which character (from 1)."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(f"{reason} at character {at + 1}")
        self.reason, self.at = reason, at


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is a sign, an operator, a function's name, `label`, `text` or `end`; `value` the label or text in it."""

    kind: str
    value: str
    at: int


def tokenize(text: str) -> list[Token]:
    """The tokens, an `end` last. Raises SelectorError."""
    tokens: list[Token] = []
    at = skip_blanks(text, 0)
    while at < len(text):
        token, end = next_token(text, at, after_label=bool(tokens) and tokens[-1].kind == "label")
        tokens.append(token)
        at = skip_blanks(text, end)
    tokens.append(Token("end", "", at))
    return tokens


def skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def next_token(text: str, at: int, *, after_label: bool) -> tuple[Token, int]:
    for sign in SIGNS:
        if text.startswith(sign, at):
            return Token(sign, "", at), at + len(sign)
    if (quote := text[at]) in "'\"":  # no escapes: a text ends at the next quote of its kind
        end = text.find(quote, at + 1)
        if end < 0:
            raise SelectorError(f"the text has no closing {quote}", at)
        return Token("text", text[at + 1 : end], at), end + 1
    if text[at] in "=&|":
        raise SelectorError(f"{text[at]} stands alone; {text[at] * 2} is meant", at)
    if after_label:
        for name, pattern in OPERATORS.items():
            if found := pattern.match(text, at):
                return Token(name, "", at), found.end()
        raise SelectorError("an operator is missing after the label", at)
    if function := FUNCTION_NAME.match(text, at):
        found = FUNCTIONS[function[1]].match(text, at)
        if not found:
            inside = "one label" if function[1] == "has" else "nothing"
            raise SelectorError(f"{function[1]}( ) takes {inside} and a closing )", at)
        return Token(function[1], found.groupdict().get("label", ""), at), found.end()
    if found := LABEL.match(text, at):
        return Token("label", found[0], at), found.end()
    if re.match(LABEL_CHARACTER, text[at]):
        raise SelectorError("the label has more than 512 characters", at)
    raise SelectorError(f"{text[at]!r} has no meaning here", at)
