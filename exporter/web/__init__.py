"""The exporter's HTTP server. The one place that knows Starlette and uvicorn."""

from exporter.web.server import Server, open_sockets
from exporter.web.site import Health, Site, create_site

__all__ = ["Health", "Server", "Site", "create_site", "open_sockets"]
