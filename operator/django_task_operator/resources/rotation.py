"""When a database's URL has changed, and whether the pods are replaced for it: pure.

A container gets its environment when it starts, so pods that run keep the URL of their time. What the
operator remembers of a URL is a keyed hash, which tells that it changed and nothing else. It stands on the
Deployment itself, where a new one rolls nothing. Only when a change was seen, and the task table answers
under the new URL, does the pod template get the hash as a mark, and that rolls. So nothing rolls for a first
hash, for one made with another key, or for a URL that does not work.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

# On the Deployment: the URL under which the task table answered last.
URL_HASH_ANNOTATION = "djangotasks.dev/database-url-hash"
# On the pod template: the URL for which the pods were replaced last.
URL_MARK_ANNOTATION = "djangotasks.dev/replaced-for-database-url"

# Nobody finds a second URL of the same hash by chance, and an annotation stays readable.
_DIGEST_CHARACTERS = 32
# Tells one key from another.
_KEY_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a Deployment says of its database's URL.

    Args:
        known: the hash of the URL under which the task table answered last; None where there is none.
        mark: the hash of the URL for which the pods were replaced last; None where they never were.
        changed: whether the pods are replaced just now.
    """

    known: str | None = None
    mark: str | None = None
    changed: bool = False


NO_ROTATION = Rotation()


def url_hash(key: bytes, worker_uid: str, url: str) -> str:
    """Hash a URL so that only who has ``key`` can try which URL it is.

    Each worker's hash is its own: that two have the same URL does not show. Before the hash of the URL
    stands one of the key, because hashes of different keys say nothing about each other.
    """
    digest = _digest(key, f"{worker_uid} {url}")[:_DIGEST_CHARACTERS]
    return f"{_digest(key, '')[:_KEY_CHARACTERS]}-{digest}"


def follow(before: Rotation, seen: str | None, *, is_asked: bool, works: bool, has_pods: bool) -> Rotation:
    """Tell what the Deployment is to say next.

    Args:
        before: what it says now.
        seen: the hash of the URL that new pods would get; None where that is not known.
        is_asked: whether pods are to be replaced when their URL has changed.
        works: whether the task table answers under the URL that was seen.
        has_pods: whether there are pods, which have a former URL.
    """
    if not is_asked:
        # Without the hash, what changes meanwhile rolls nothing when it is asked for again.
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
