"""Every key of the store. What one atomic step touches shares one hash tag.

Tenant, namespace, function and alias names cannot hold `{`, `}`, `:` or `/` (see `cs_core.names`), so keys cannot
collide and a name cannot choose its slot.
"""

from __future__ import annotations

import hashlib


def schema() -> str:
    """The record of the store's schema."""
    return "cs:{schema}:record"


def schema_lease() -> str:
    """Hash of the lease of who migrates."""
    return "cs:{schema}:lease"


def functions(tenant: str, namespace: str) -> str:
    """Sorted set of the function names of a namespace, all of score 0: lexicographic order."""
    return f"cs:{{{tenant}}}:functions:{namespace}"


def function(tenant: str, namespace: str, name: str) -> str:
    """A function's record."""
    return f"cs:{{{tenant}}}:function:{namespace}/{name}"


def version(tenant: str, namespace: str, name: str, number: int) -> str:
    """A version's record."""
    return f"cs:{{{tenant}}}:version:{namespace}/{name}/{number}"


def aliases(tenant: str, namespace: str, name: str) -> str:
    """Hash of a function's aliases: name to record."""
    return f"cs:{{{tenant}}}:aliases:{namespace}/{name}"


def secrets(tenant: str, namespace: str) -> str:
    """Hash of a namespace's secrets: name to record."""
    return f"cs:{{{tenant}}}:secrets:{namespace}"


def draft(tenant: str, draft_id: str) -> str:
    """A draft's record."""
    return f"cs:{{{tenant}}}:draft:{draft_id}"


def bundle(tenant: str, sha256: str) -> str:
    """A bundle's bytes."""
    return f"cs:{{{tenant}}}:bundle:{sha256}"


def mutations(tenant: str) -> str:
    """Stream of a tenant's mutations."""
    return f"cs:{{{tenant}}}:mutations"


def mutation_bell() -> str:
    """Channel that is rung with the tenant's name when something was appended to its mutation log."""
    return "cs:bell:mutations"


def worker_bindings(tenant: str) -> str:
    """Sorted set of a tenant's worker bindings as `namespace/name`, all of score 0: lexicographic order."""
    return f"cs:{{{tenant}}}:workers"


def worker_binding(tenant: str, namespace: str, name: str) -> str:
    """A worker binding's record."""
    return f"cs:{{{tenant}}}:worker:{namespace}/{name}"


def worker_reports(tenant: str, namespace: str, name: str) -> str:
    """Hash of what pollers report of a worker binding: instance to report."""
    return f"cs:{{{tenant}}}:worker_reports:{namespace}/{name}"


def worker_index(partition: int) -> str:
    """Sorted set of the tenants that have worker bindings, by the last change of one (ms, the server's clock)."""
    return f"cs:{{p{partition}}}:workers"


def cadence_tasks(partition: int) -> str:
    """Hash of the Cadence tasks that are not answered yet: `tenant/activation` to record."""
    return f"cs:{{p{partition}}}:cadence:tasks"


def cadence_owners(partition: int) -> str:
    """Hash of who answers each of them: `tenant/activation` to instance."""
    return f"cs:{{p{partition}}}:cadence:owners"


def relay_state(tenant: str) -> str:
    """Hash of how far a tenant's mutations were relayed, and whether it stands in the index of the relay."""
    return f"cs:{{{tenant}}}:relay"


def relay_tenants() -> str:
    """Sorted set of the tenants whose mutations may wait for the relay, by the generation of their listing."""
    return "cs:{relay}:tenants"


def relay_lease() -> str:
    """Hash of who relays, and until when."""
    return "cs:{relay}:lease"


def ledger_head(name: str) -> str:
    """Hash of the head of a ledger, as the relay last left it."""
    return f"cs:{{relay}}:head:{name}"


def slots(tenant: str, namespace: str, name: str, number: int) -> str:
    """Sorted set of who runs a version now, by the end of their leases."""
    return f"cs:{{{tenant}}}:slots:{namespace}/{name}/{number}"


def user_value(tenant: str, key: str) -> str:
    """A value that functions of the tenant keep."""
    return f"cs:{{{tenant}}}:kv:v:{key}"


def user_keys(tenant: str) -> str:
    """Sorted set of the keys that functions of the tenant keep, all of score 0."""
    return f"cs:{{{tenant}}}:kv:keys"


def user_sizes(tenant: str) -> str:
    """Hash of the sizes of the values that functions of the tenant keep, by key."""
    return f"cs:{{{tenant}}}:kv:sizes"


def user_expiries(tenant: str) -> str:
    """Sorted set of the keys whose values expire, by when (ms)."""
    return f"cs:{{{tenant}}}:kv:expiries"


def user_bytes(tenant: str) -> str:
    """Sum of the sizes."""
    return f"cs:{{{tenant}}}:kv:bytes"


def activation(partition: int, tenant: str, activation_id: str) -> str:
    """Hash of an activation."""
    return f"cs:{{p{partition}}}:activation:{tenant}/{activation_id}"


def activation_logs(partition: int, tenant: str, activation_id: str) -> str:
    """List of an activation's log lines."""
    return f"cs:{{p{partition}}}:logs:{tenant}/{activation_id}"


def activation_index(partition: int, tenant: str, namespace: str, name: str) -> str:
    """Sorted set of a function's activations by accept time, within a partition."""
    return f"cs:{{p{partition}}}:index:{tenant}/{namespace}/{name}"


def open_activations(partition: int, tenant: str) -> str:
    """Sorted set of a tenant's activations that have not ended, by the moment after which they no longer count."""
    return f"cs:{{p{partition}}}:open:{tenant}"


def ends(partition: int) -> str:
    """Sorted set of a partition's activations that have not ended, by the moment by which they should have."""
    return f"cs:{{p{partition}}}:ends"


def queue(partition: int, topic: str, part: str) -> str:
    """A part of one partition of a topic."""
    return f"cs:{{p{partition}}}:q:{topic}:{part}"


def queue_bell(topic: str) -> str:
    """Channel that is rung when something was published on a topic."""
    return f"cs:bell:{topic}"


def schedules(tenant: str, namespace: str) -> str:
    """Sorted set of the schedule names of a namespace, all of score 0: lexicographic order."""
    return f"cs:{{{tenant}}}:schedules:{namespace}"


def schedule(tenant: str, namespace: str, name: str) -> str:
    """A schedule's record: what is wanted."""
    return f"cs:{{{tenant}}}:schedule:{namespace}/{name}"


def shard_lease(shard: int) -> str:
    """Hash of the lease of a scheduler shard."""
    return f"cs:{{s{shard}}}:lease"


def shard_due(shard: int) -> str:
    """Sorted set of a shard's schedules that have a tick left, by when to look at them next."""
    return f"cs:{{s{shard}}}:due"


def shard_intents(shard: int) -> str:
    """Sorted set of changes that are being handed to a shard, by when they were announced."""
    return f"cs:{{s{shard}}}:intents"


def shard_schedule(shard: int, uid: str) -> str:
    """Hash of a schedule as its shard has it: record, cursor, counts."""
    return f"cs:{{s{shard}}}:schedule:{uid}"


def shard_ticks(shard: int, uid: str) -> str:
    """Stream of a schedule's past ticks."""
    return f"cs:{{s{shard}}}:ticks:{uid}"


def shard_of(uid: str, shards: int) -> int:
    """The scheduler shard of a schedule."""
    return int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=4).digest()) % shards


def tenant_shards(tenant: str, shards: int) -> tuple[int, ...]:
    """The scheduler shards that a tenant may use: chosen as its partitions are."""
    return tenant_partitions(tenant, shards)


def members(service: str) -> str:
    """Sorted set of the living instances of a service, by the end of their lives."""
    return f"cs:{{m:{service}}}:members"


def member_reports(service: str) -> str:
    """Hash of what the living instances of a service say of themselves: instance to report."""
    return f"cs:{{m:{service}}}:reports"


def results_channel(instance: str) -> str:
    """Channel of the results for one instance."""
    return f"cs:{{i:{instance}}}:results"


def control_channel(instance: str) -> str:
    """Channel of what one instance is told to do."""
    return f"cs:{{i:{instance}}}:control"


def tenant_partitions(tenant: str, partitions: int) -> tuple[int, ...]:
    """The partitions that a tenant may use: two of them where there are two, chosen by its name.

    Shuffle sharding: a tenant that floods fills its own two, and few others share both.
    """
    digest = hashlib.blake2b(tenant.encode(), digest_size=8).digest()
    first = int.from_bytes(digest[:4]) % partitions
    if partitions == 1:
        return (first,)
    step = 1 + int.from_bytes(digest[4:]) % (partitions - 1)
    return (first, (first + step) % partitions)


def partition_of(tenant: str, activation_id: str, partitions: int) -> int:
    """The partition of an activation: whoever holds its id finds its record."""
    choices = tenant_partitions(tenant, partitions)
    return choices[hashlib.blake2b(activation_id.encode(), digest_size=1).digest()[0] % len(choices)]
