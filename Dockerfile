# The image of XMasq: the sidecar, its command line tool and its BPF objects, on the least of Debian 12 that Node.js and
# libbpf need; no shell, no package manager. docs/installation.md says how it is built and used.
#
#   make image [ARCH=arm64]                             with Debian's buildah, no engine
#   docker buildx build --platform linux/amd64,linux/arm64 .
#
# The build runs on amd64 for either architecture: nothing in it is compiled for a processor but the BPF objects, which are the same on both.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM --platform=linux/amd64 ${BASE} AS build
WORKDIR /src
COPY . .
RUN apt-get update -q && apt-get install -yq --no-install-recommends make && make product SETUP_OPTIONS=--build-only
# Filled in by the builder: the architecture of the image.
ARG TARGETARCH=amd64
# Seconds since 1970: the time of every file, and of the list of parts.
ARG SOURCE_DATE_EPOCH=0
RUN scripts/image/root.sh "$TARGETARCH" /root-of-image

FROM scratch
COPY --from=build /root-of-image/ /
ENV PATH=/usr/bin
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="XMasq for Antrea" \
  org.opencontainers.image.description="Pod traffic between nodes without encapsulation, by eBPF, beside Antrea's Open vSwitch pipeline" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"
# UID 0 owns the pins and Open vSwitch's socket; charts/xmasq drops every capability but the three that are needed.
USER 0:0
CMD ["xmasq-agent", "run"]
