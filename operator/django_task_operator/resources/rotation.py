"""When a database's URL has changed, and whether the pods are replaced for it: pure.

A container gets its environment when it starts, so running pods keep an old URL. The operator stores a keyed
hash of the URL, which only shows whether it has changed. It is an annotation of the Deployment itself, where
a new value causes no rollout. Only when a change was seen, and the task table answers at the new URL, does
the pod template get the hash as a mark, which causes a rollout. So there is no rollout for a first hash, for
one made with another key, or for a URL that does not work.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

# On the Deployment: the hash of the URL at which the task table last answered.
URL_HASH_ANNOTATION = "djangotasks.dev/database-url-hash"
# On the pod template: the hash of the URL for which the pods were last replaced.
URL_MARK_ANNOTATION = "djangotasks.dev/replaced-for-database-url"

# Long enough that two URLs never have the same hash by chance, and short enough to be readable.
_DIGEST_CHARACTERS = 32
# Distinguishes keys.
_KEY_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a Deployment says about its database's URL.

    Args:
        known: the hash of the URL at which the task table last answered; None if there is none.
        mark: the hash of the URL for which the pods were last replaced; None if they never were.
        changed: whether the pods are to be replaced now.
    """

    known: str | None = None
    mark: str | None = None
    changed: bool = False


NO_ROTATION = Rotation()


def url_hash(key: bytes, worker_uid: str, url: str) -> str:
    """Hash a URL so that only someone who has ``key`` can try out URLs.

    Each worker has its own hash, so it does not show that two workers have the same URL. The hash of the URL
    is preceded by one of the key, because hashes made with different keys cannot be compared.
    """
    digest = _digest(key, f"{worker_uid} {url}")[:_DIGEST_CHARACTERS]
    return f"{_digest(key, '')[:_KEY_CHARACTERS]}-{digest}"


def follow(before: Rotation, seen: str | None, *, is_asked: bool, works: bool, has_pods: bool) -> Rotation:
    """Return what the Deployment should say next.

    Args:
        before: what it says now.
        seen: the hash of the URL that new pods would get; None if that is not known.
        is_asked: whether pods are to be replaced when their URL has changed.
        works: whether the task table answers at that URL.
        has_pods: whether there are pods, which have an older URL.
    """
    if not is_asked:
        # Without the hash, changes in the meantime cause no rollout when replacing is enabled again.
        return Rotation(mark=before.mark)
    if seen is None or not works or seen == before.known:
        return Rotation(before.known, before.mark)
    if before.known is None or _key_of(before.known) != _key_of(seen) or not has_pods:
        return Rotation(seen, before.mark)
    return Rotation(seen, mark=seen, changed=True)


def _digest(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def _key_of(hashed: str) -> str:
    return hashed.partition("-")[0]
