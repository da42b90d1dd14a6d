"""The graph of an exported network, checked before PyTorch builds it: only operations on tensors, and plain sizes.

graph = checked_graph(json.loads(text))       # the same, without what is not needed to compute

PyTorch looks up the target of a node among all names of its packages, such as `torch.os.system`, evaluates the expressions of
sizes with SymPy, which calls `eval`, compiles guards, and imports the modules that a tree of arguments names.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from experiments.config.wording import shortened

LEFT_OUT: dict[str, Any] = {  # stack traces, guards, and what only networks with other inputs than images need
    "metadata": {},
    "guards_code": [],
    "treespec_namedtuple_fields": {},
    "custom_obj_values": {},
    "torch_version": "2",
}
REFUSED = {"as_custom_obj", "custom_obj", "as_operator", "token"}
NAME = re.compile(r"[\w.]*", re.ASCII)
ARGUMENT = re.compile(r"[\w., >-]{0,200}", re.ASCII)
ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.([A-Za-z]\w*)", re.ASCII)
INTERNAL = re.compile(  # of the operators whose names begin with _, which check little: those that usual layers become
    r"_assert_\w+|__(and|or|xor)__|_(softmax|log_softmax|to_copy|adaptive_avg_pool[23]d|weight_norm|conv_depthwise2d)"
    r"|_native_multi_head_attention|_transformer_encoder_layer_fwd|_scaled_dot_product_\w+"
)
FILES = {"from_file", "save"}  # operators that read or write files
OTHER_TARGETS = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sum|sqrt)"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
)
SYMBOLIC = {"Symbol", "Integer", "Rational", "Add", "Mul", "FloorDiv", "CleanDiv", "CeilDiv", "Mod", "PythonMod"}
SYMBOLIC |= {"Max", "Min", "IntTrueDiv", "TruncToInt", "CeilToInt", "FloorToInt", "Eq", "Ne", "Lt", "Le", "Gt", "Ge"}
SYMBOLIC |= {"Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"}
SYMBOLIC |= {"And", "Or", "Not"}
SYMBOL = re.compile(r"[a-z]+[0-9]+", re.ASCII)
LONGEST = 2000  # characters of the expression of a size
TREE = {"builtins.tuple", "builtins.list", "builtins.dict", None}


def checked_graph(described: Mapping[str, Any]) -> dict[str, Any]:
    """The description of an exported network without what is not needed.

    Raises:
        ValueError: it contains anything but operations on tensors.
    """
    checked: dict[str, Any] = _checked(described)
    graph = checked["graph_module"]
    graph["module_call_graph"] = [call for call in graph["module_call_graph"] if call["fqn"] == ""]
    return checked


def _checked(value: Any) -> Any:
    if isinstance(value, Mapping):
        if refused := REFUSED & {key for key, item in value.items() if item is not None}:
            raise ValueError(f"it has objects other than tensors ({', '.join(sorted(refused))})")
        return {
            _name(key): LEFT_OUT[key] if key in LEFT_OUT else CHECKS.get(key, _checked)(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_checked(item) for item in value]
    if isinstance(value, str):
        return _name(value)
    if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 63):
        return value
    raise ValueError(f"it has the value {shortened(str(value), 40)!r}")


def _name(value: Any) -> str:
    """Names become Python code in which a graph is compiled."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"it has the name {shortened(str(value), 40)!r}")
    return value


def _argument(value: Any) -> str:
    """A text that an operator takes, such as that of `einsum`."""
    if not isinstance(value, str) or not ARGUMENT.fullmatch(value):
        raise ValueError(f"it has the argument {shortened(str(value), 40)!r}")
    return value


def _target(value: Any) -> str:
    """An operator of PyTorch on tensors, or one of numbers."""
    if found := ATEN.fullmatch(str(value)):
        name, overload = found.groups()
        operator = getattr(getattr(torch.ops.aten, name, None), overload, None)
        known = isinstance(operator, torch._ops.OpOverload)
        if known and name not in FILES and (not name.startswith("_") or INTERNAL.fullmatch(name)):
            return str(value)
    elif OTHER_TARGETS.fullmatch(str(value)):
        return str(value)
    raise ValueError(f"it calls {shortened(str(value), 60)!r}")


def _expression(value: Any) -> str:
    """The size of a dimension, such as `Mul(Integer(2), Symbol('s77', positive=True, integer=True))`."""
    text = str(value)
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= LONGEST else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or not _is_size(tree.body):
        raise ValueError(f"it has the size {shortened(text, 60)!r}")
    return text


def _is_size(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=bool(number) | int(number)):
            return abs(number) < 1 << 63
        case ast.Name(id=name):
            return bool(SYMBOL.fullmatch(name)) or name in ("true", "false")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_size(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Mod(), right=right):
            return _is_size(left) and _is_size(right)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=keywords):
            return bool(SYMBOL.fullmatch(name)) and _are_flags(keywords)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return name in SYMBOLIC - {"Symbol"} and all(map(_is_size, args)) and _are_flags(keywords)
    return False


def _are_flags(keywords: list[ast.keyword]) -> bool:
    return all(isinstance(one.value, ast.Constant) and isinstance(one.value.value, bool) for one in keywords)


def _tree(value: Any) -> str:
    """How arguments or results are nested: only plain containers, because PyTorch imports what others name."""

    def is_plain(node: Any) -> bool:
        return (
            isinstance(node, dict)
            and node.keys() == {"type", "context", "children_spec"}
            and node["type"] in TREE
            and node["context"] in (None, "null", "[]")
            and all(map(is_plain, node["children_spec"]))
        )

    version, tree = json.loads(value)
    if type(version) is not int or not is_plain(tree):
        raise ValueError("its arguments are not plain containers")
    return json.dumps([version, tree])


CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "as_string": _argument,
    "target": _target,
    "expr_str": _expression,
    "in_spec": _tree,
    "out_spec": _tree,
}
