# The daemon, without anything that builds it. Any base with Python 3.11 or newer, its venv module and glibc will do.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t voicelink-exporter .
#
# How it is run: docs/how-to/install-and-run.md
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Two environments: the one that is kept has no pip, the other one's pip installs into it.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/voicelink-exporter
WORKDIR /src
COPY requirements/build.txt requirements/run.txt requirements/
RUN /opt/build/bin/pip install --require-hashes --no-deps -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/voicelink-exporter/bin/python install --require-hashes --no-deps -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN /opt/build/bin/python -m hatchling build -t wheel -d /opt/dist \
 && /opt/build/bin/pip --python /opt/voicelink-exporter/bin/python install --no-deps --no-index --find-links /opt/dist voicelink-exporter

FROM ${BASE_IMAGE}
# What a base brings for installing packages, whether python.org's or Debian's, is of use to an intruder alone.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip \
    /usr/lib/python3*/ensurepip /usr/share/python-wheels \
 && install -d -o 65532 -g 65532 /var/lib/voicelink-exporter
COPY --from=build /opt/voicelink-exporter /opt/voicelink-exporter
# The store is in the state directory, the only folder that is written to: mount something there that lasts.
WORKDIR /var/lib/voicelink-exporter
ENV PATH=/opt/voicelink-exporter/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/voicelink-exporter
USER 65532:65532
EXPOSE 10880
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["voicelink-exporter", "healthcheck"]
ENTRYPOINT ["voicelink-exporter"]
# Empty where whoever builds it doesn't say.
ARG VERSION
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="voicelink-exporter" \
      org.opencontainers.image.description="Prometheus exporter for the readiness of VoiceLink numbers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
