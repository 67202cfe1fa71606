# Any image with Python 3.11 or newer and its venv module will do.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /app
# The compiler of the native engine; it stays in this stage.
RUN command -v gcc >/dev/null || { apt-get update -qq \
    && apt-get install -qq --no-install-recommends gcc libc6-dev >/dev/null; }
# pip stays out of the environment that is shipped.
RUN python3 -m venv /tmp/pip && python3 -m venv --without-pip /opt/venv
ARG EXTRAS=cpu
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Dependencies alone: this layer lasts until they change. Both secrets are optional.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip.crt \
    /tmp/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
    --quiet --disable-pip-version-check --constraint constraints.txt ".[$EXTRAS]" \
    && rm -rf build ./*.egg-info
COPY service service
# The extension is optional to pip, so that its absence would pass unseen.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip.crt \
    /tmp/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
    --quiet --disable-pip-version-check --no-deps --target /tmp/compiled . \
    && cp /tmp/compiled/service/scorers/_bert*.so service/scorers/ \
    && rm -rf build ./*.egg-info
COPY models/default models/default
# Nothing is compiled at run time; and whatever the builder's umask, any user may read.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash service \
    && chmod -R a+rX .

FROM ${BASE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="DisRanker-serve" \
      org.opencontainers.image.description="Ranks documents for a query inside a latency budget." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve", "--host", "0.0.0.0"]
