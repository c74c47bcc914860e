"""One model on the test images: metrics, corruptions, latency, figures."""
