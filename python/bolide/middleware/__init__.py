"""Wrappers around an application that translate between interfaces or correct the scope."""
