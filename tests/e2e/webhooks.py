"""Webhooks that change and refuse objects: a small service mesh, and two policy engines."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import put_secret
from tests.e2e.harness import eventually
from tests.waiting import PATIENTLY

from django_task_operator.metrics_api.certificates import ServingCertificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Kubectl

RESTRICTED: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_RESTRICTED: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# It ends with an error when it is told to, as some do.
PROXY = {
    "name": "mesh",
    "image": "shop:dev",
    "command": ["python", "-c", "import signal; signal.signal(15, lambda *_: exit(3)); signal.pause()"],
    "securityContext": RESTRICTED,
}
NEW_PODS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
# What follows ANSWER(request), which returns what is special about the response.
SERVER = """
import base64, http.server, json, ssl

class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": review["request"]["uid"], **ANSWER(review["request"])}
        body = json.dumps({**review, "request": None, "response": response}).encode()
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
INJECTS = f"""
import base64, json

def ANSWER(request):
    patch = [{{"op": "add", "path": "/spec/containers/0", "value": {PROXY!r}}}]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    return {{"allowed": True, "patchType": "JSONPatch", "patch": encoded}}
"""
# Kyverno's words, which are several lines, for a policy that was never made for our Deployments.
REFUSAL = """

resource Deployment/{namespace}/{name} was blocked due to the following policies

require-cost-center:
  check-for-label: 'validation error: the label `cost-center` is required. rule check-for-label
    failed at path /spec/template/metadata/labels/cost-center/'
"""
REFUSES = f"""
def ANSWER(request):
    wanted = request["object"]
    if "cost-center" in wanted["spec"]["template"]["metadata"].get("labels", {{}}):
        return {{"allowed": True}}
    words = {REFUSAL!r}.format(namespace=request["namespace"], name=wanted["metadata"]["name"])
    return {{"allowed": False, "status": {{"message": words}}}}
"""


@contextmanager
def mesh(kubectl: Kubectl, here: Kubectl, namespace: str) -> Iterator[None]:
    """Put the container before those of every new pod in the namespace."""
    with _webhook(kubectl, here, namespace, INJECTS, "Mutating", {"rules": [NEW_PODS]}):
        yield


@contextmanager
def policy(kubectl: Kubectl, here: Kubectl, namespace: str) -> Iterator[None]:
    """Refuse every Deployment in the namespace whose pods have no label ``cost-center``, as Kyverno does."""
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"],
    }
    with _webhook(kubectl, here, namespace, REFUSES, "Validating", {"rules": [rule]}):
        until_refused(here, "deployment", "probe", "--image=shop:dev")
        yield


@contextmanager
def admission_policy(kubectl: Kubectl, here: Kubectl, namespace: str) -> Iterator[None]:
    """The API server's own policy engine: every pod in the namespace needs a label ``cost-center``."""
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                    }
                ]
            },
            "validations": [
                {
                    "expression": "has(object.metadata.labels) && 'cost-center' in object.metadata.labels",
                    "message": "every pod needs a label cost-center (ask the platform team)",
                }
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace,
            "validationActions": ["Deny"],
            "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
            },
        },
    }
    try:
        for manifest in (policy, binding):
            kubectl("create", "-f-", manifest=manifest)
        until_refused(here, "-f-", manifest=allowed_pod())
        yield
    finally:
        kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy"
        kubectl("delete", kinds, namespace, "--ignore-not-found")


def until_refused(here: Kubectl, *args: str, manifest: object = None) -> None:
    """Wait until the API server, which applies a policy with a delay, refuses objects without the label."""

    def refused() -> bool:
        done = here.run("create", *args, "--dry-run=server", manifest=manifest)
        return done.returncode != 0 and "cost-center" in done.stderr

    eventually(refused, "the policy is in force")


def allowed_pod() -> dict[str, Any]:
    """A pod that meets the Pod Security Standard ``restricted``."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {
            "securityContext": POD_RESTRICTED,
            "containers": [{"name": "probe", "image": "shop:dev", "securityContext": RESTRICTED}],
        },
    }


@contextmanager
def _webhook(
    kubectl: Kubectl, here: Kubectl, namespace: str, answer: str, kind: str, about: dict[str, Any]
) -> Iterator[None]:
    """Serve a webhook from the namespace, for the namespace's objects of the kinds in ``about``."""
    certificate = ServingCertificate.make([f"webhook.{namespace}.svc"], timedelta(hours=1), datetime.now(UTC))
    put_secret(here, "webhook", **{"tls.crt": certificate.certificate, "tls.key": certificate.key})
    labels = {"app": "webhook"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "webhook", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": POD_RESTRICTED,
            "containers": [
                {
                    "name": "webhook",
                    "image": "shop:dev",
                    "command": ["python", "-c", answer + SERVER],
                    "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                    "securityContext": RESTRICTED,
                    "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
                }
            ],
            "volumes": [{"name": "tls", "secret": {"secretName": "webhook"}}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "webhook"},
        "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": 8443}]},
    }
    for manifest in (pod, service):
        here("create", "-f-", manifest=manifest)
    here("wait", "--for=condition=Ready", "pod/webhook", PATIENTLY)
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "webhook.example.org",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {
                    "service": {"name": "webhook", "namespace": namespace},
                    "caBundle": base64.b64encode(certificate.authority.encode()).decode(),
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                **about,
            }
        ],
    }
    kubectl("create", "-f-", manifest=configuration)
    try:
        yield
    finally:
        kubectl("delete", f"{kind}webhookconfiguration".lower(), namespace, "--ignore-not-found")
