"""A small service mesh: a webhook that puts a container into pods, which never ends by itself."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import put_secret

from django_task_operator.metrics_api.certificates import ServingCertificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Kubectl

RESTRICTED: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
# It ends with an error when it is told to, as some do.
PROXY = {
    "name": "mesh",
    "image": "shop:dev",
    "command": ["python", "-c", "import signal; signal.signal(15, lambda *_: exit(3)); signal.pause()"],
    "securityContext": RESTRICTED,
}
SERVER = """
import base64, http.server, json, ssl

class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        patch = [{"op": "add", "path": "/spec/containers/0", "value": PROXY}]
        answer = {
            "uid": review["request"]["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
        }
        body = json.dumps({**review, "request": None, "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("", 8443), Webhook)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@contextmanager
def mesh(kubectl: Kubectl, here: Kubectl, namespace: str) -> Iterator[None]:
    """Let every pod of a Job in the namespace get the container."""
    certificate = ServingCertificate.make([f"mesh.{namespace}.svc"], timedelta(hours=1), datetime.now(UTC))
    put_secret(here, "mesh", **{"tls.crt": certificate.certificate, "tls.key": certificate.key})
    labels = {"app": "mesh"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mesh", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "webhook",
                    "image": "shop:dev",
                    "command": ["python", "-c", f"PROXY = {PROXY!r}\n{SERVER}"],
                    "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                    "securityContext": RESTRICTED,
                    "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
                }
            ],
            "volumes": [{"name": "tls", "secret": {"secretName": "mesh"}}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "mesh"},
        "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": 8443}]},
    }
    for manifest in (pod, service):
        here("create", "-f-", manifest=manifest)
    here("wait", "--for=condition=Ready", "pod/mesh", "--timeout=60s")
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "mesh.example.org",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {
                    "service": {"name": "mesh", "namespace": namespace},
                    "caBundle": base64.b64encode(certificate.authority.encode()).decode(),
                },
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                    }
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "objectSelector": {"matchExpressions": [{"key": "job-name", "operator": "Exists"}]},
            }
        ],
    }
    kubectl("create", "-f-", manifest=configuration)
    try:
        yield
    finally:
        kubectl("delete", "mutatingwebhookconfiguration", namespace, "--ignore-not-found")
