"""python -m services.consensus"""

from ndml.runtime.service import run_service
from services.consensus.main import build
from services.consensus.settings import ConsensusSettings

run_service("ndml-consensus", ConsensusSettings, build)
