from ndml.runtime.service import run_service
from services.llm.main import build
from services.llm.settings import LlmSettings

if __name__ == "__main__":
    run_service("ndml-llm", LlmSettings, build)
