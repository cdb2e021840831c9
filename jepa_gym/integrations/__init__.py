"""Adapters between jepa-gym and other libraries, a module each."""
