"""Breaks the code on purpose, one small change at a time, and says which changes no test notices."""
