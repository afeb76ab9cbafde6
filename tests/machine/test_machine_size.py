"""``Machine`` keeps parts and order: what it has and does is counted: it is no place for everything."""

import ast
import inspect

import attrs

from acrn_dm.machine import machine as module
from acrn_dm.machine.machine import Machine

ATTRIBUTES, METHODS = 15, 20

(TREE,) = (
    node
    for node in ast.parse(inspect.getsource(module)).body
    if isinstance(node, ast.ClassDef) and node.name == "Machine"
)


def test_machine_has_15_attributes_at_most() -> None:
    """Fields, private ones too, and whatever a method puts on the instance or the class has besides."""
    assigned = {
        node.attr
        for node in ast.walk(TREE)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    plain = {
        target.id
        for node in TREE.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    names = {field.name for field in attrs.fields(Machine)} | assigned | plain
    assert len(names) <= ATTRIBUTES, sorted(names)


def test_machine_has_20_methods_at_most() -> None:
    """Properties and private ones count; nothing is inherited."""
    methods = [node.name for node in TREE.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(methods) <= METHODS, methods
    assert Machine.__mro__ == (Machine, object)
