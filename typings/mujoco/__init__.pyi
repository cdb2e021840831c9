# MuJoCo ships no types and is a compiled module: everything in it is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
