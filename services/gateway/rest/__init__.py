"""The gateway's REST door: the protos' `google.api.http` annotations over HTTP, the seed's routes, /openapi.json and /docs."""

from services.gateway.rest.app import build_app
from services.gateway.rest.ports import Dispatcher, Health, HealthReport
from services.gateway.rest.server import RestServer
from services.gateway.rest.settings import RestSettings

__all__ = ["Dispatcher", "Health", "HealthReport", "RestServer", "RestSettings", "build_app"]
