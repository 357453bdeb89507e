"""A deterministic simulation of whole weeks: real daemons in virtual time, bad weather, and a judge at the vendor."""
