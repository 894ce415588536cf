# AKLight's images: one file, one target a component.
#
#   docker build --target broker -t aklight-broker .
#
# Targets: broker, producer, consumer, stress. Works with the classic builder and with
# BuildKit; uses nothing that only one of them knows.

# ---- dependencies: a layer that our own code does not touch -------------------------------
# Keep the tag in step with rust-toolchain.toml (.ci/run compares them). That file itself stays
# outside: in here it would only make rustup fetch clippy and rustfmt.
FROM rust:1.95-slim-bookworm AS dependencies
# gcc and libc's headers for aws-lc-rs, which rustls stands on. The slim image has them today;
# asking for them costs nothing and does not rest on that.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# How hard the compiler tries, for cargo to find in its environment: a test of the containers builds
# in half the time with less.
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL=3
ARG CARGO_PROFILE_RELEASE_LTO=thin
COPY Cargo.toml Cargo.lock ./
COPY common/Cargo.toml common/
COPY log/Cargo.toml log/
COPY broker/Cargo.toml broker/
COPY producer/Cargo.toml producer/
COPY consumer/Cargo.toml consumer/
COPY stress/Cargo.toml stress/
COPY cli/Cargo.toml cli/
COPY oracle/Cargo.toml oracle/
COPY sim/Cargo.toml sim/
COPY bench/Cargo.toml bench/
# What openraft is built with in place of a crate that it names.
COPY stand-ins stand-ins
# Empty crates in the shape of ours, so that cargo builds everything below them and nothing of
# ours. The command is the same as the one further down: other flags would build other features.
RUN for crate in common log broker producer consumer stress cli oracle sim bench; do \
      mkdir -p "$crate/src" && : > "$crate/src/lib.rs" && echo 'fn main() {}' > "$crate/src/main.rs"; \
    done \
 && rm common/src/main.rs log/src/main.rs oracle/src/main.rs \
 && echo 'fn main() {}' > broker/build.rs \
 && cargo build --release --locked \
      -p aklight-broker -p aklight-producer -p aklight-consumer -p aklight-stress

# ---- our own code -------------------------------------------------------------------------
FROM dependencies AS build
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL=3
ARG CARGO_PROFILE_RELEASE_LTO=thin
COPY common common
COPY log log
COPY broker broker
COPY producer producer
COPY consumer consumer
COPY stress stress
# cargo goes by the time of a file, and a copied file keeps its own, which is older than the
# empty crate that was built in its place: touch them all.
RUN find common log broker producer consumer stress -name '*.rs' -exec touch {} + \
 && cargo build --release --locked \
      -p aklight-broker -p aklight-producer -p aklight-consumer -p aklight-stress

# ---- what all images stand on -------------------------------------------------------------
FROM debian:bookworm-slim AS runtime
# ca-certificates: the consumer calls Twilio over TLS and trusts what the system trusts.
# procps: `docker-compose exec producer1 ps aux` shows the producer's four processes.
# The spool is open to its group: a producer that is root to open an engine's socket, without root's
# capabilities, gets in that way.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates procps \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && groupadd --gid 10001 aklight \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin aklight \
 && mkdir -p /app/data /app/offsets /app/spool \
 && chown 10001:10001 /app/data /app/offsets /app/spool \
 && chmod g+w /app/spool
COPY docker/health /usr/local/bin/aklight-health
WORKDIR /app
# A number, so that an orchestrator can see that it is not root. A new named volume takes the
# owner of the folder that it is mounted on.
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS broker
COPY --from=build /src/target/release/aklight-broker /usr/local/bin/
ENV AKLIGHT_DATA_DIR=/app/data AKLIGHT_LISTEN=0.0.0.0:7000 AKLIGHT_LISTEN_HTTP=0.0.0.0:7070
VOLUME /app/data
EXPOSE 7000 7070
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["aklight-health", "broker"]
ENTRYPOINT ["aklight-broker"]

FROM runtime AS producer
COPY --from=build /src/target/release/aklight-producer /usr/local/bin/
ENV AKLIGHT_SPOOL_DIR=/app/spool
VOLUME /app/spool
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["aklight-health", "producer"]
ENTRYPOINT ["aklight-producer"]

FROM runtime AS consumer
COPY --from=build /src/target/release/aklight-consumer /usr/local/bin/
ENV AKLIGHT_OFFSETS_DIR=/app/offsets
VOLUME /app/offsets
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["aklight-health", "consumer"]
ENTRYPOINT ["aklight-consumer"]

# A producer that measures its own container, with something in it to load that container:
#   docker-compose exec stress1 ./stress cpu 30
FROM producer AS stress
COPY --from=build /src/target/release/stress /app/stress
# Twenty seconds of load at the start, so that `up stress1` alone makes the alarm ring; then the
# producer goes on as the container's first process.
ENTRYPOINT ["/bin/bash", "-c", "./stress cpu 20 & exec aklight-producer \"$@\"", "stress1"]
