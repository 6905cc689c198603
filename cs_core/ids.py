"""Ids: what is unique, and how it is spelled."""

from __future__ import annotations

import uuid

from ulid import ULID

# Namespace of derived activation ids; never changes, or repeats would stop meeting their first activation.
_ACTIVATIONS = uuid.UUID("6a1c9c43-6d0f-5c5e-9a55-0d8b7f6f2f0b")


def request_id() -> str:
    """Make a request id: `req_` and a ULID."""
    return f"req_{ULID()}"


def draft_id() -> str:
    """Make a draft id: `drf_` and a ULID."""
    return f"drf_{ULID()}"


def mutation_id() -> str:
    """Make a mutation id: `mut_` and a ULID."""
    return f"mut_{ULID()}"


def message_id() -> str:
    """Make a queue message id: a ULID."""
    return str(ULID())


def instance_id(service: str) -> str:
    """Make the id of a running process: the service's name, `-`, and a ULID."""
    return f"{service}-{ULID()}"


def activation_id() -> str:
    """Make a fresh activation id: a random UUID."""
    return str(uuid.uuid4())


def activation_id_from(tenant: str, *parts: str) -> str:
    """Derive an activation id: the same tenant and parts give the same UUID (version 5), whoever asks."""
    # Lengths keep ("a", "bc") and ("ab", "c") apart.
    name = "".join(f"{len(part)}:{part}" for part in (tenant, *parts))
    return str(uuid.uuid5(_ACTIVATIONS, name))
