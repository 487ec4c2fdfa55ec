# The server of a site; with --privileged also the lab (`docker run --privileged IMAGE lab --tour`).
FROM node:22-bookworm-slim AS web
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY proto/openapi.json ../proto/
COPY web .
RUN npm run build

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
COPY --from=web /src/web/dist web/dist
ENV LIFEBOAT_REQUIRE_UI=1
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends qemu-system-x86 qemu-utils seabios ovmf iproute2 e2fsprogs mount util-linux binutils \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/lifeboat /usr/local/bin/lifeboat
VOLUME /var/lib/lifeboat
EXPOSE 8443 9443
HEALTHCHECK --interval=30s --timeout=5s CMD ["lifeboat", "server", "status", "--json"]
ENTRYPOINT ["lifeboat"]
CMD ["serve"]
