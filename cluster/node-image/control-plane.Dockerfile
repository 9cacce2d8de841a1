# The images that kubeadm starts, one a target.
ARG BASE_IMAGE

FROM scratch AS kube-apiserver
COPY kube-apiserver /usr/local/bin/
ENV PATH=/usr/local/bin

FROM scratch AS kube-controller-manager
COPY kube-controller-manager /usr/local/bin/
ENV PATH=/usr/local/bin

FROM scratch AS kube-scheduler
COPY kube-scheduler /usr/local/bin/
ENV PATH=/usr/local/bin

FROM scratch AS etcd
COPY etcd /usr/local/bin/
ENV PATH=/usr/local/bin

FROM scratch AS coredns
COPY coredns /
ENTRYPOINT ["/coredns"]

FROM scratch AS pause
COPY pause /
USER 65535:65535
ENTRYPOINT ["/pause"]

FROM ${BASE_IMAGE} AS kube-proxy
RUN apt-get update \
    && apt-get install -y --no-install-recommends conntrack iptables kmod nftables \
    && rm -rf /var/lib/apt/lists/*
COPY kube-proxy /usr/local/bin/
