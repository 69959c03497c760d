# The server in embedded mode; tables and events live in the volume /data.
FROM python:3.11-slim
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /headrace
COPY pyproject.toml uv.lock ./
COPY clients/python clients/python
COPY compute compute
COPY server server
RUN uv sync --locked --no-dev --compile-bytecode && useradd --create-home headrace && mkdir /data && chown headrace /data
USER headrace
ENV PATH=/headrace/.venv/bin:$PATH HEADRACE_DATA_DIR=/data NUMBA_CACHE_DIR=/tmp/numba \
    HEADRACE_GRPC_ADDRESS=0.0.0.0:50051 HEADRACE_HTTP_ADDRESS=0.0.0.0:9464
VOLUME /data
EXPOSE 50051 9464
CMD ["headrace-server"]
