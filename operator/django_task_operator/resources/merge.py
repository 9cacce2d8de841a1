"""Merges a user's partial pod template over the one that the operator builds."""

from __future__ import annotations

from typing import Any

# The merge keys of Kubernetes' strategic merge patch for the lists that the built template can have, so
# that podTemplate behaves like `kubectl patch`. Other lists are replaced.
# https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/#podspec-v1-core
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
}


def merge(base: Any, overlay: Any, *, key: str = "") -> Any:
    """Return ``base`` merged with ``overlay``; neither is changed.

    Objects merge field by field, the lists of ``MERGE_KEYS`` entry by entry, and anything else is replaced;
    null removes a field.
    """
    if isinstance(overlay, dict):
        merged = {**base} if isinstance(base, dict) else {}
        for field, value in overlay.items():
            if value is None:
                merged.pop(field, None)
            else:
                merged[field] = merge(merged.get(field), value, key=field)
        return merged
    identity = MERGE_KEYS.get(key)
    if identity and _all_have(identity, overlay):
        if _all_have(identity, base):
            return _merge_entries(base, overlay, identity)
        return [merge({}, entry) for entry in overlay]
    return overlay


def _all_have(identity: str, entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(e, dict) and identity in e for e in entries)


def _merge_entries(
    base: list[dict[str, Any]], overlay: list[dict[str, Any]], identity: str
) -> list[dict[str, Any]]:
    changes = {entry[identity]: entry for entry in overlay}
    kept = [merge(entry, changes.pop(entry[identity], {})) for entry in base]
    return [*kept, *(merge({}, entry) for entry in changes.values())]
