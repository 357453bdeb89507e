"""The exporter's HTTP server. The one place that knows Starlette, uvicorn and bcrypt."""
