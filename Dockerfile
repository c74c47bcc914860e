# The server alone: it serves this folder's champion over HTTP. CPU, without TensorFlow.
# `docker build --tag image-classification .` after `image-classification export`.
FROM python:3.13-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/app/src
WORKDIR /app

# The same versions as in requirements.lock; each file must have its hash.
COPY requirements-serving.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-serving.lock \
    && python -m compileall -q /usr/local/lib/python3.13/site-packages \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin server

COPY params.yaml ./
COPY conf conf
COPY src src
# Mount newer ones over these two, and a new champion is loaded without a restart.
COPY exported exported
COPY promotions promotions
COPY reports/leaderboard.json reports/
# What the server records in use; mount a volume on each.
RUN mkdir feedback observations && chown 10001 feedback observations

USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "image_classification", "serve", "--host", "0.0.0.0", "--port", "8000"]
