"""The llm service as a graph of objects."""

from __future__ import annotations

from ndml.internal.v1 import llm_pb2
from ndml.runtime.service import Service
from services.llm.batching import BatchLimits, EmbeddingQueue
from services.llm.joint import JointQueue
from services.llm.models import chat_model, encoder_loader, joint_loader, torch_threads
from services.llm.servicer import LlmServicer
from services.llm.settings import LlmSettings


def build(settings: LlmSettings, service: Service) -> None:
    """Embedding first: it is what the rest of the suite waits for."""
    embedding = settings.embedding
    limits = BatchLimits(embedding.workers, embedding.batch_tokens, embedding.queue_texts, embedding.max_token_vector_bytes)
    queue = service.attach(EmbeddingQueue(encoder_loader(embedding), limits, torch_threads(embedding.torch_threads)))
    joint = service.attach(JointQueue(settings.joint, joint_loader(settings.joint), torch_threads(settings.joint.torch_threads)))
    generator = service.attach(chat_model(settings.chat))
    servicer = LlmServicer(queue, joint, generator, service.version, service.started_at)
    service.expose(llm_pb2.DESCRIPTOR.services_by_name["LlmService"], servicer)
