"""Policies: what decides which variant runs. `contract` says what one is; each of the others is one."""
