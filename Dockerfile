# The daemon, without anything that builds it. Any base with Python 3.11 or newer, its venv module and glibc will do.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/voicelink-exporter
WORKDIR /src
COPY requirements/run.txt requirements/run.txt
RUN /opt/voicelink-exporter/bin/python -m pip install --require-hashes --no-deps -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN /opt/voicelink-exporter/bin/python -m pip install --no-deps --no-build-isolation . \
 && /opt/voicelink-exporter/bin/python -m pip uninstall --yes hatchling editables trove-classifiers pathspec pluggy pip

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="voicelink-exporter" \
      org.opencontainers.image.description="Prometheus exporter for the readiness of VoiceLink numbers" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/voicelink-exporter /opt/voicelink-exporter
ENV PATH=/opt/voicelink-exporter/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# The store's default place is the working folder: mount something there that lasts.
RUN install -d -o 65532 -g 65532 /var/lib/voicelink-exporter
WORKDIR /var/lib/voicelink-exporter
USER 65532:65532
EXPOSE 10880
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["voicelink-exporter", "healthcheck"]
ENTRYPOINT ["voicelink-exporter"]
