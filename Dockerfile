# syntax=docker/dockerfile:1
# Two stages: one with the tools that build and install, one with the result alone. Everything
# that is installed, also what builds the package, comes from a lock file with hashes.
#
#   docker build -t driftlock-otlp:0.1.0 .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -v driftlock:/var/lib/driftlock driftlock-otlp:0.1.0

ARG PYTHON=3.12-slim-bookworm
# The same with a C compiler, for the scanner of OTLP.
ARG BUILD_PYTHON=3.12-bookworm

FROM python:${BUILD_PYTHON} AS build
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements-build.lock
# Without pip of its own: what runs cannot install.
RUN python -m venv --without-pip /opt/driftlock \
    && /opt/build/bin/pip --python /opt/driftlock/bin/python install \
        --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY driftlock_otlp ./driftlock_otlp
COPY supabase/migrations ./supabase/migrations
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/driftlock/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="driftlock-otlp" \
      org.opencontainers.image.description="An OpenTelemetry sidecar that finds anomalies by compression" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /var/lib/driftlock \
        --shell /usr/sbin/nologin driftlock \
    && install --directory --owner=driftlock --group=driftlock --mode=0700 /var/lib/driftlock
COPY --from=build /opt/driftlock /opt/driftlock
COPY deploy/docker/config.yaml /etc/driftlock/config.yaml
ENV PATH=/opt/driftlock/bin:$PATH PYTHONUNBUFFERED=1 DRIFTLOCK_DATA=/var/lib/driftlock
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
WORKDIR /var/lib/driftlock
VOLUME /var/lib/driftlock
EXPOSE 4317 4318 8080
# http.client rather than urllib: a proxy in the environment is not asked for a local address.
HEALTHCHECK --start-period=30s --start-interval=2s --interval=15s --timeout=5s --retries=3 CMD \
    ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["driftlock-otlp"]
CMD ["run", "--config", "/etc/driftlock/config.yaml"]
