# Targets: service (the default), gpu, repository, triton. `deploy/image/build.sh` builds them.
#
# Any image with Python 3.11 or newer and its venv module will do; for gpu one with CUDA's libraries.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm
ARG TRITON_BASE=nvcr.io/nvidia/tritonserver:25.08-py3

FROM ${BASE} AS tools
WORKDIR /app
# The compiler of the native engine; it stays in this stage.
RUN command -v gcc >/dev/null || { apt-get update -qq \
    && apt-get install -qq --no-install-recommends gcc libc6-dev >/dev/null; }
# pip stays out of the environment that is shipped.
RUN python3 -m venv /tmp/pip && python3 -m venv --without-pip /opt/venv
ENV PIP="/tmp/pip/bin/pip --python /opt/venv/bin/python --quiet --disable-pip-version-check" \
    PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt README.md LICENSE ./

# Dependencies alone: this layer lasts until they change. Both secrets are optional.
FROM tools AS build
ARG EXTRAS=cpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip.crt \
    $PIP install --constraint constraints.txt ".[$EXTRAS]" && rm -rf build ./*.egg-info

FROM tools AS app
COPY service service
# The extension is optional to pip, so that its absence would pass unseen.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip.crt \
    $PIP install --no-deps --target /tmp/compiled . \
    && cp /tmp/compiled/service/scorers/_bert*.so service/scorers/ \
    && rm -rf build ./*.egg-info
ARG BUNDLE=models/default
COPY ${BUNDLE} models/default
# Nothing is compiled at run time; and whatever the builder's umask, any user may read.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash service \
    && chmod -R a+rX .

FROM ${BASE} AS runtime
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve", "--host", "0.0.0.0"]
LABEL org.opencontainers.image.title="DisRanker-serve" \
      org.opencontainers.image.description="Ranks documents for a query inside a latency budget." \
      org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS service
COPY --from=build /opt/venv /opt/venv
COPY --from=app /app /app

# Writes Triton's model repository; an init container, and the next stage.
FROM build AS build-repository
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip.crt \
    $PIP install --constraint constraints.txt ".[triton]" onnx && rm -rf build ./*.egg-info \
    && mkdir -m 0755 /repository && chown 10001:10001 /repository

FROM runtime AS repository
COPY --from=build-repository /opt/venv /opt/venv
COPY --from=build-repository --chown=10001:10001 /repository /repository
COPY --from=app /app /app
COPY --chmod=0755 export export
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "export", "triton"]
CMD ["models/default", "/repository", "--overwrite"]

FROM repository AS written
ARG TRITON_OPTIONS="--device cpu --precision int8"
RUN python -m export triton models/default /repository $TRITON_OPTIONS

# Triton with the repository in it, where no init container writes one.
FROM ${TRITON_BASE} AS triton
COPY --from=written /repository /repository
USER 10001:10001
CMD ["tritonserver", "--model-repository=/repository", "--model-control-mode=none", \
     "--disable-auto-complete-config", "--strict-readiness=true"]

FROM tools AS build-gpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip.crt \
    $PIP install --constraint constraints.txt ".[gpu,triton]" && rm -rf build ./*.egg-info

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /opt/venv /opt/venv
COPY --from=app /app /app

# Last, so that it is what a build without --target makes.
FROM service
