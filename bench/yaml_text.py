"""YAML that people write or send: read so that no text of a few bytes can hang a command."""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 100_000  # that a text stands for once its aliases are followed


def parse_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises yaml.YAMLError for what is no YAML, holds a value that cannot be, is nested more deeply
    than Python can follow, or whose aliases stand for itself or for more values than anybody
    writes.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _values(root, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(root)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    # PyYAML's own constructors: the 45th of 13, !!bool maybe, a number of thousands of digits.
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
        raise yaml.YAMLError(f"it holds an impossible value: {error}") from error
    finally:
        loader.dispose()


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a node stands for.

    Args:
        node: The node.
        counted: The numbers that are known, by node; a node that is being counted has infinitely
            many, for it holds itself.

    Raises UnicodeEncodeError for a text that is none.
    """
    if id(node) in counted:
        return counted[id(node)]
    counted[id(node)] = MOST_VALUES + 1
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_values(item, counted) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            total += _values(key, counted) + _values(value, counted)
    else:
        node.value.encode()  # fails for half a character ("\\ud800")
    counted[id(node)] = total
    return total
