"""Healing: who is mended when, and why not.

The policy decides, the ledger holds, the executor sends, the controller joins them.
"""
