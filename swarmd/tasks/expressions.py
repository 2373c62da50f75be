"""Arithmetic and algebra in answers: from text to sympy objects without evaluating the text.

sympy.parse_expr hands the text to eval(). Here Python's parser makes a tree of it, and each node that is on a short
list of kinds is turned into the sympy object that parse_expr would have made; any other node refuses the whole text.
Exponents, shifts and the size of numbers are bounded, so that no short text asks for a number of a billion digits.
"""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable, Mapping

import sympy

MAX_DEPTH = 100
"""Nesting of brackets, functions and powers. Sums and products in a row don't count: they may have many terms."""
MAX_EXPONENT = 1000
"""Of a power with a symbol in it: degree of a polynomial."""
MAX_BITS = 20_000
"""Length of a number's numerator and denominator together."""


class ExpressionError(ValueError):
    """The text is not an expression of the kinds that are allowed, or too large a one."""


FUNCTIONS: Mapping[str, Callable[..., sympy.Expr]] = {
    name: getattr(sympy, name)
    for name in (
        "sqrt", "cbrt", "exp", "log", "ln", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot",
        "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf",
    )
}  # fmt: skip
_CONSTANTS = {"E": sympy.E, "pi": sympy.pi, "I": sympy.I}

_BITWISE = {
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def parse_number(text: str) -> sympy.Expr:
    """The value of an expression of numbers and operators alone, such as `(3 + 5)*7/2`. Raises ExpressionError."""
    return _Builder(symbols=None, functions={}).build(text)


def parse_polynomial(text: str) -> sympy.Expr:
    """An expression of numbers, symbols and operators, in sympy's automatic form. Raises ExpressionError."""
    return _Builder(symbols={}, functions={}).build(text)


def parse_formula(text: str, symbols: Mapping[str, sympy.Symbol]) -> sympy.Expr:
    """An expression with the elementary functions besides; `symbols` are those that must not be understood
    otherwise, any other name that means nothing in sympy is a symbol too. Raises ExpressionError."""
    return _Builder(symbols=symbols, functions=FUNCTIONS).build(text)


class _Builder:
    def __init__(
        self, symbols: Mapping[str, sympy.Symbol] | None, functions: Mapping[str, Callable[..., sympy.Expr]]
    ) -> None:
        self._symbols = symbols
        self._functions = functions

    def build(self, text: str) -> sympy.Expr:
        if not text.isascii():
            raise ExpressionError("characters outside ASCII")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        # What the parser raises on text as it comes: NUL bytes are a ValueError, deep nesting the last two.
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise ExpressionError(str(error)) from None
        return self._convert(tree.body, 0)

    def _convert(self, node: ast.expr, depth: int) -> sympy.Expr:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}")
        # `a + b + c` is nested to the left as deep as it has terms: walked down without recursion.
        pending: list[ast.BinOp] = []
        while isinstance(node, ast.BinOp):
            pending.append(node)
            node = node.left
        value = self._operand(node, depth)
        while pending:
            operation = pending.pop()
            value = _apply(operation.op, value, self._convert(operation.right, depth + 1))
        return value

    def _operand(self, node: ast.expr, depth: int) -> sympy.Expr:
        match node:
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int(number)):
                return _bounded(sympy.Integer(number))
            case ast.Constant(value=float(number)) if number != float("inf"):
                return sympy.Float(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._convert(operand, depth + 1)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._convert(operand, depth + 1)
            case ast.Name(id=name):
                return self._symbol(name)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in self._functions:
                return self._functions[name](self._convert(argument, depth + 1))
        raise ExpressionError(f"{type(node).__name__} is not allowed")

    def _symbol(self, name: str) -> sympy.Expr:
        if self._symbols is not None:
            if name in self._symbols:
                return self._symbols[name]
            if name in _CONSTANTS:
                return _CONSTANTS[name]
            if not hasattr(sympy, name) and not hasattr(builtins, name):
                return sympy.Symbol(name)
        raise ExpressionError(f"the name {name} is not allowed")


def _apply(kind: ast.operator, left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    if isinstance(kind, ast.Pow):
        return _power(left, right)
    if type(kind) in _ARITHMETIC:
        return _bounded(_ARITHMETIC[type(kind)](left, right))
    if type(kind) in _BITWISE and left.is_Integer and right.is_Integer:
        if isinstance(kind, ast.LShift) and right > MAX_BITS:
            raise ExpressionError("a shift too far")
        return _bounded(_BITWISE[type(kind)](left, right))
    raise ExpressionError(f"the operator {type(kind).__name__} is not allowed here")


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    if base.is_Rational and exponent.is_Rational:
        if _bits(base) * abs(exponent) > MAX_BITS:
            raise ExpressionError("a power too large")
    elif exponent.is_Number and not abs(exponent) <= MAX_EXPONENT:
        raise ExpressionError("an exponent too large")
    return _bounded(base**exponent)


def _bits(number: sympy.Expr) -> int:
    return int(number.p).bit_length() + int(number.q).bit_length()


def _bounded(value: sympy.Expr) -> sympy.Expr:
    if value.is_Rational and _bits(value) > MAX_BITS:
        raise ExpressionError("a number too large")
    return value
