# The image of tsflanneld; see docs/image.md. Needs the Debian package: npm run package:deb
ARG BASE=debian:12-slim
FROM ${BASE}
COPY tsflannel_*.deb /var/tmp/
RUN set -e; \
    if ! command -v nft && ! command -v iptables; then \
      apt-get update; \
      apt-get install --yes --no-install-recommends iptables nftables; \
      rm -rf /var/lib/apt/lists/*; \
    fi; \
    dpkg --install /var/tmp/tsflannel_*_"$(dpkg --print-architecture)".deb; \
    rm /var/tmp/tsflannel_*.deb
ENTRYPOINT ["/usr/bin/tsflanneld"]
