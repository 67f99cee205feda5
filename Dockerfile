# The image holds the static program, the authorities that sign certificates, and nothing else: no shell, no C library.
#
#     docker build --build-arg PYREPLICA_COMMIT="$(git rev-parse --short=12 HEAD)" -t pyreplica .
#     docker run -v /etc/pyreplica:/etc/pyreplica:ro pyreplica
#     docker run pyreplica --help
#
# It runs as user 65532. That user must be able to read the config files. PostgreSQL's pg_dump is not in it, which
# `pyreplica copy --schema` needs. It is for x86-64, as .cargo/config.toml says.
FROM docker.io/library/rust:1-bookworm AS build
ARG PYREPLICA_COMMIT=
WORKDIR /src
COPY . .
RUN cargo build --release --locked && mkdir -p /image/etc/pyreplica /image/etc/ssl/certs \
    && cp target/x86_64-unknown-linux-gnu/release/pyreplica /image/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'pyreplica:x:65532:65532:pyreplica:/:/pyreplica' >/image/etc/passwd

FROM scratch
COPY --from=build /image /
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/pyreplica"]
