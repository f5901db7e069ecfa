"""Text widgets with `dynamicPrompts`: comments are stripped and one of {a|b|c} is chosen, as the frontend does."""

import random
import re

from .workflow import WorkflowError

COMMENT = re.compile(r"/\*[\s\S]*?\*/|//[^\n\r\u2028\u2029]*")
ESCAPED = re.compile(r"\\([{}|])")
MAX_DEPTH = 100


def choose(text: str, rng: random.Random, depth: int = 0) -> str:
    """The text with comments gone and every {a|b} replaced by one of its options; `\\{` is a literal brace."""
    if depth > MAX_DEPTH:
        raise WorkflowError(f"a text has choices {{a|b}} nested more than {MAX_DEPTH} deep")
    text = COMMENT.sub("", text)
    result, i = "", 0
    while i < len(text):
        if text[i] == "{":
            options, i = _options(text, i + 1)
            result += choose(rng.choice(options), rng, depth + 1)
            continue
        width = 2 if text[i] == "\\" else 1
        result += text[i : i + width]
        i += width
    return ESCAPED.sub(r"\1", result)


def _options(text: str, i: int) -> tuple[list[str], int]:
    """The options of the block that opens before position i, and the position behind its closing brace."""
    options, depth = [""], 0
    while i < len(text):
        char = text[i : i + 2] if text[i] == "\\" else text[i]
        i += len(char)
        if char == "}" and not depth:
            break
        if char == "|" and not depth:
            options.append("")
            continue
        depth += (char == "{") - (char == "}")
        options[-1] += char
    return options, i
