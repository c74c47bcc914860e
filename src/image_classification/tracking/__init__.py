"""Runs: their event log on disk, and from there to MLflow."""

import os

# MLflow reads these when it is imported. The background logger tries again later, where MLflow's
# own retries would block for minutes; and each training would ask the network for telemetry.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
