# The operator.
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

# The installer has an environment of its own, so that the operator's carries none.
FROM python AS installer
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-setuptools python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv --system-site-packages /installer
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1

# The root file system may be read-only, so what can be compiled is compiled here, and never checked
# against its source again.
FROM installer AS dependencies
COPY requirements/operator.txt /requirements.txt
# The secret `ca` is a CA bundle, for networks that need their own. Without it, pip uses its own.
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi; \
    python3 -m venv --without-pip /opt/venv \
    && /installer/bin/pip --python /opt/venv/bin/python install \
      --only-binary :all: --require-hashes -r /requirements.txt \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv

FROM installer AS package
COPY pyproject.toml LICENSE /source/
COPY crds /source/crds
COPY operator /source/operator
RUN /installer/bin/pip wheel --no-build-isolation --no-deps -w /wheel /source \
    && python3 -m venv --without-pip /package \
    && /installer/bin/pip --python /package/bin/python install --no-index --no-deps /wheel/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /package/lib

FROM python
LABEL org.opencontainers.image.title="django-task-operator" \
      org.opencontainers.image.description="A Kubernetes operator that runs and autoscales Django's task workers" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=dependencies /opt/venv /opt/venv
# A layer of its own: a new operator with the same requirements is a small one to pull.
COPY --from=package /package/lib /opt/venv/lib
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1
# By number: Kubernetes' runAsNonRoot cannot check a name.
USER 65532:65532
ENTRYPOINT ["python", "-m", "django_task_operator"]
