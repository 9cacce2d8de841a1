"""The command line, read once into a frozen value."""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from django_task_operator.metrics_api.serving import Settings
from django_task_operator.resources import RuntimeSource
from django_task_operator.resources.runtime import RUN_AS_USER
from django_task_operator.spec import Key
from django_task_operator.tasktable import Networks, TokenRules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RUNTIME_IMAGE = "django-task-worker:dev"


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator was started with.

    Args:
        watch_namespaces: whose workers are managed; empty for those of the whole cluster.
        port: where the probes and metrics are served.
        runtime: where runtime Injected is copied from, and the user that the pods run as.
        restrict_pod_templates: whether pod templates may not have what leads out of the namespace.
        database_networks: where the operator may connect to databases.
        database_tokens: which databases' passwords are tokens, and what prints them.
        kubeconfig: the cluster's, outside of it; None for the service account of the pod.
        metrics_api: how external metrics are served; None if they are not.
        lease: only the operator that holds it is active; None if this operator is the only one.
        hash_key: the Secret of the key with which database URLs are hashed; None where no pods are
            replaced because their URL has changed.
        instance: the name of this operator's pod, or of the machine.
        log_level: the lowest level that is logged.
        log_format: for machines or for people.
    """

    watch_namespaces: tuple[str, ...] = ()
    port: int = 8080
    runtime: RuntimeSource = field(default_factory=lambda: RuntimeSource(RUNTIME_IMAGE))
    restrict_pod_templates: bool = False
    database_networks: Networks = field(default_factory=Networks)
    database_tokens: TokenRules = field(default_factory=TokenRules)
    kubeconfig: str | None = None
    metrics_api: Settings | None = None
    lease: Key | None = None
    hash_key: Key | None = None
    instance: str = ""
    log_level: str = "info"
    log_format: Literal["json", "text"] = "json"

    @classmethod
    def parse(cls, arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Self:
        """Read the command line (None: that of the process) and the environment that the chart sets.

        Raises:
            SystemExit: an option is unknown or has an invalid value; standard error says which.
        """
        parser = argument_parser()
        given = parser.parse_args(arguments)
        pod, namespace = environment.get("POD_NAME"), environment.get("POD_NAMESPACE")
        if given.lease and not (pod and namespace):
            parser.error("--lease: set POD_NAME and POD_NAMESPACE to the name and namespace of this pod")
        if given.hash_key_secret and not namespace:
            parser.error("--hash-key-secret: set POD_NAMESPACE to the namespace of this pod")
        return cls(
            watch_namespaces=tuple(given.watch_namespace),
            port=given.port,
            runtime=RuntimeSource(
                given.runtime_image,
                given.runtime_revision,
                RUN_AS_USER if given.pod_security == "restricted" else None,
            ),
            restrict_pod_templates=given.restrict_pod_templates,
            database_networks=_networks(parser, given, environment),
            database_tokens=_tokens(parser, given.database_tokens),
            kubeconfig=given.kubeconfig,
            metrics_api=_metrics_api(given, namespace or "default"),
            lease=_own(given.lease, namespace),
            hash_key=_own(given.hash_key_secret, namespace),
            instance=pod or socket.gethostname(),
            log_level=given.log_level,
            log_format=given.log_format,
        )


def argument_parser() -> argparse.ArgumentParser:
    """Return what knows the options, with their defaults and help."""
    parser = argparse.ArgumentParser(
        prog="django-task-operator", description="Runs and autoscales Django's task workers on Kubernetes."
    )
    parser.add_argument(
        "--watch-namespace",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="look after the workers of this namespace only; may be given several times",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        help="the port that serves /healthz, /readyz and /metrics (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime-image",
        default=RUNTIME_IMAGE,
        help="the worker image from which pods with runtime Injected copy db_worker (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime-revision",
        default="",
        help="any text: another one is another runtime, as for a new image under the same name",
    )
    parser.add_argument(
        "--pod-security",
        default="restricted",
        choices=["restricted", "platform"],
        help=f"restricted: the workers' pods run as user {RUN_AS_USER}; platform: as the user that the"
        " platform gives them, as OpenShift does, which allows no other (default: %(default)s)",
    )
    parser.add_argument(
        "--restrict-pod-templates",
        action="store_true",
        help="refuse workers whose podTemplate sets host namespaces or paths, privileges, service accounts or"
        " node names",
    )
    parser.add_argument(
        "--allow-database-network",
        action="append",
        default=[],
        metavar="CIDR",
        help="connect to databases in this network only; may be given several times (default: in all)",
    )
    parser.add_argument(
        "--refuse-database-network",
        action="append",
        default=[],
        metavar="CIDR",
        help="connect to no database in this network, nor to the API server's address; may be given several"
        " times, and takes precedence over those that are allowed",
    )
    parser.add_argument(
        "--database-tokens",
        metavar="FILE",
        help="a file with rules in YAML: for which namespaces and hosts which command prints a token that is"
        " the database's password",
    )
    _add_metrics_api(parser)
    parser.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="the least important messages to log (default: %(default)s)",
    )
    parser.add_argument(
        "--log-format",
        default="json",
        choices=["json", "text"],
        help="json for log collectors, text for a terminal (default: %(default)s)",
    )
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="connect with the current context of this file, instead of the pod's service account",
    )
    parser.add_argument(
        "--lease",
        metavar="NAME",
        help="work only while holding this Lease, so that several operators can run side by side; needs"
        " POD_NAME and POD_NAMESPACE in the environment. Without it, no other operator may run",
    )
    parser.add_argument(
        "--hash-key-secret",
        metavar="NAME",
        help="replace pods whose database URL has changed, which a keyed hash tells; the key is kept in this"
        " Secret in the namespace POD_NAMESPACE, and made if there is none. Without it, no pod is replaced",
    )
    return parser


def _own(name: str | None, namespace: str | None) -> Key | None:
    return Key(namespace=namespace, name=name) if name and namespace else None


def _add_metrics_api(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("external metrics for the HorizontalPodAutoscaler")
    group.add_argument(
        "--metrics-api-service",
        default="",
        metavar="NAME",
        help="serve external.metrics.k8s.io through this Service in the operator's namespace",
    )
    group.add_argument(
        "--metrics-api-port",
        type=int,
        default=8443,
        help="the port that the Service forwards to (default: %(default)s)",
    )
    group.add_argument(
        "--metrics-api-owner",
        default="",
        metavar="CLUSTERROLE",
        help="the ClusterRole that owns the APIService, which is deleted with it",
    )
    group.add_argument(
        "--metrics-api-secret",
        default="",
        metavar="NAME",
        help="the Secret in which the operator keeps its serving certificate",
    )
    group.add_argument(
        "--metrics-api-certificate-directory",
        default="",
        metavar="DIRECTORY",
        help="use the tls.crt, tls.key and ca.crt in this directory, which something else renews",
    )
    group.add_argument(
        "--metrics-api-certificate-hours",
        type=float,
        default=2160,
        metavar="HOURS",
        help="how long a certificate that the operator makes is valid (default: %(default)g)",
    )


def _networks(
    parser: argparse.ArgumentParser, given: argparse.Namespace, environment: Mapping[str, str]
) -> Networks:
    refused = list(given.refuse_database_network)
    # Kubernetes sets it in every pod.
    if refused and (api_server := environment.get("KUBERNETES_SERVICE_HOST")):
        refused.append(api_server)
    try:
        return Networks.parse(given.allow_database_network, refused)
    except ValueError as error:
        parser.error(f"--allow-database-network, --refuse-database-network: {error}")


def _tokens(parser: argparse.ArgumentParser, path: str | None) -> TokenRules:
    if path is None:
        return TokenRules()
    try:
        return TokenRules.parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"--database-tokens {path}: {error.strerror}")
    except ValueError as error:
        parser.error(f"--database-tokens {path}: {error}")


def _metrics_api(given: argparse.Namespace, namespace: str) -> Settings | None:
    if not given.metrics_api_service:
        return None
    return Settings(
        namespace=namespace,
        service=given.metrics_api_service,
        port=given.metrics_api_port,
        owner=given.metrics_api_owner,
        secret=given.metrics_api_secret,
        directory=given.metrics_api_certificate_directory,
        validity=timedelta(hours=given.metrics_api_certificate_hours),
    )
