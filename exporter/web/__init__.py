"""The exporter's HTTP server. The one place that knows Starlette, uvicorn and bcrypt."""

from exporter.web.listening import name_of, open_all, open_sockets
from exporter.web.security import Security
from exporter.web.server import Server
from exporter.web.site import Health, Site, create_site

__all__ = ["Health", "Security", "Server", "Site", "create_site", "name_of", "open_all", "open_sockets"]
