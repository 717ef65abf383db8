from ndml.runtime.service import run_service
from services.gateway.main import build
from services.gateway.settings import GatewaySettings

if __name__ == "__main__":
    run_service("ndml-gateway", GatewaySettings, build)
