# The service and the models of model_store/, for an NVIDIA card (torch's CUDA build, from PyPI) or a CPU:
#   docker build -t headline .
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 headline
# A far smaller image without CUDA, on CPU:
#   docker build -t headline:cpu --build-arg PIP_OPTIONS="--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple" .
#   docker run --rm -p 127.0.0.1:8000:8000 headline:cpu

FROM docker.io/library/python:3.11-slim AS builder

# Any options of pip: an index of your own, a folder of wheels (--find-links), a proxy.
ARG PIP_OPTIONS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# What the service needs: gigabytes, rebuilt only when these two files change.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*project['dependencies'], *project['optional-dependencies']['sentencepiece'], sep='\n')" > requirements.txt
# hadolint ignore=SC2086
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir $PIP_OPTIONS --constraint constraints.txt --requirement requirements.txt

# The service itself.
COPY README.md ./
COPY app app
COPY bench bench
# hadolint ignore=SC2086
RUN /opt/venv/bin/pip wheel --no-cache-dir $PIP_OPTIONS --no-deps --wheel-dir /dist .


FROM docker.io/library/python:3.11-slim

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin headline
COPY --from=builder /opt/venv /opt/venv
COPY model_store /srv/model_store
COPY --from=builder /dist /dist
RUN /opt/venv/bin/pip install --no-cache-dir --no-index --no-deps /dist/*.whl

# Nothing is written but under /tmp, and there only when HEADLINE_MODEL is a hub id.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/tmp/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HEADLINE_HOST=0.0.0.0 \
    HEADLINE_PORT=8000 \
    HEADLINE_MODEL_STORE=/srv/model_store
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# The start period is for loading and warming up; an answer ends it early.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['HEADLINE_PORT'] + '/readyz', timeout=4)"]

CMD ["headline", "serve"]
