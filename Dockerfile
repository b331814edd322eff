# syntax=docker/dockerfile:1
# Two stages: one with the tools that build and install, one with the result alone.

FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/driftlock
COPY requirements.lock ./
RUN /opt/driftlock/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY driftlock_otlp ./driftlock_otlp
RUN /opt/driftlock/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/driftlock driftlock
COPY --from=build /opt/driftlock /opt/driftlock
COPY config/gateway.yaml /etc/driftlock/config.yaml
USER 10001
WORKDIR /var/lib/driftlock
ENV PATH=/opt/driftlock/bin:$PATH PYTHONUNBUFFERED=1
VOLUME /var/lib/driftlock
EXPOSE 4317 4318 8080
HEALTHCHECK --start-period=20s --interval=15s --timeout=5s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["driftlock-otlp"]
CMD ["run", "--config", "/etc/driftlock/config.yaml"]
