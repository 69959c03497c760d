# The server, with a Ray of its own unless it is told of a cluster; tables and events live in the volume /data.
FROM python:3.11-slim
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /headrace

# What is installed from elsewhere changes seldom, and is a layer of its own.
COPY pyproject.toml uv.lock ./
COPY clients/python/pyproject.toml clients/python/
COPY compute/pyproject.toml compute/
COPY server/pyproject.toml server/
RUN uv sync --locked --no-dev --no-install-workspace --compile-bytecode

COPY clients/python clients/python
COPY compute compute
COPY server server
RUN uv sync --locked --no-dev --compile-bytecode
ENV PATH=/headrace/.venv/bin:$PATH

# Kernels are compiled here, once: a start would take half a minute for them, in every worker. The cache is read by
# whoever runs the server, and made again where the processor is another one.
ENV NUMBA_CACHE_DIR=/headrace/.numba
RUN python -c 'from headrace_compute.kernels import warm; import headrace_server.events.record_batch; warm()' \
    && useradd --create-home headrace \
    && mkdir /data && chown -R headrace /data /headrace/.numba

USER headrace
ENV HEADRACE_DATA_DIR=/data HEADRACE_GRPC_ADDRESS=0.0.0.0:50051 HEADRACE_HTTP_ADDRESS=0.0.0.0:9464 \
    RAY_USAGE_STATS_ENABLED=0
VOLUME /data
EXPOSE 50051 9464
# Until it serves, /health answers 503 and says what it waits for.
HEALTHCHECK --interval=5s --timeout=3s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/health')"]
CMD ["headrace-server"]
