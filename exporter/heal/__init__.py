"""Healing: which DID is healed when, and why another one is not.

The policy decides, the ledger holds, the executor sends, the controller joins them.
"""
