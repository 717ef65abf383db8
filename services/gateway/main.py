"""The object graph of the gateway: reading it is reading the service."""

from __future__ import annotations

import os
import time

from ndml.runtime.auth import AnonymousAuthenticator, Authenticator, Principal, TokenAuthenticator
from ndml.runtime.discovery import follow_service
from ndml.runtime.placement import PlacementWatcher
from ndml.runtime.service import Service
from ndml.v1 import admin_pb2, chat_pb2, memory_pb2, model_pb2
from services.gateway.admin import Admin, Peers
from services.gateway.backups import Backups
from services.gateway.chat import Chat
from services.gateway.consolidate import Consolidate
from services.gateway.contents import Contents
from services.gateway.embedding import BatchingEmbedder
from services.gateway.extraction import Extractor, LlmExtractor, RulesExtractor
from services.gateway.forget import Forget
from services.gateway.joint import JointRemote
from services.gateway.learning import Learning
from services.gateway.manage import Manage
from services.gateway.models import Models
from services.gateway.profile import Profile
from services.gateway.recall import Recall
from services.gateway.reinforce import Reinforce
from services.gateway.remember import Remember
from services.gateway.remotes import ClusterRemote, LlmRemote, MemoryNodes, StoreRemote
from services.gateway.replicas import Replicas
from services.gateway.rest import HealthReport, RestServer, build_app
from services.gateway.servicer import AdminServicer, ChatServicer, MemoryServicer, ModelServicer
from services.gateway.settings import AuthSettings, GatewaySettings, LearningSettings
from services.gateway.surprise import Surprise
from services.gateway.vectors import VectorSpace


def build(settings: GatewaySettings, service: Service) -> None:
    """Wire the gateway into `service`."""
    space = VectorSpace(settings.embedding.model, settings.embedding.dimension)
    service.authenticate_with(authenticator(settings.auth))

    # What it talks to
    dialer, zone, kubernetes = service.dialer, settings.server.zone, settings.kubernetes
    consensus = follow_service(service, kubernetes.consensus_service, kubernetes, settings.placement.consensus)
    llms = follow_service(service, kubernetes.llm_service, kubernetes, settings.llm.addresses)
    placement = service.attach(PlacementWatcher(settings.placement, service.instance, dialer, consensus, zone))
    nodes = service.attach(MemoryNodes(dialer, placement, settings.links, settings.quorum))
    replicas = Replicas(dialer, llms, zone)
    llm = service.attach(LlmRemote(replicas, space, settings.embedding.timeout_s, settings.embedding.word_vectors))
    embedder = service.attach(
        BatchingEmbedder(
            llm.encode,
            cache_entries=settings.embedding.cache_entries,
            max_batch=settings.embedding.max_batch,
            max_batches=settings.embedding.max_batches_in_flight,
            max_queued=settings.embedding.max_queued,
        )
    )

    # What it does
    contents = Contents(space, JointRemote(llm, time.monotonic))
    remember = Remember(nodes, embedder, space, _now_ms, os.urandom, contents)
    recall = Recall(nodes, embedder, space, contents)
    manage = Manage(nodes, embedder, space, _now_ms, contents)
    reinforce, consolidate, forget, profile = Reinforce(nodes), Consolidate(nodes), Forget(nodes), Profile(nodes)
    surprise = service.attach(Surprise(llm, settings.learning))
    learning = service.attach(Learning(remember, _extractor(llm, settings.learning), surprise, settings.learning))
    chat = Chat(recall, llm, learning, settings.chat)
    peers = Peers(lambda: _status(service), consensus, llms)
    cluster, stores = ClusterRemote(dialer), service.attach(StoreRemote(dialer, settings.backup.call_s))
    admin = Admin(placement, cluster, stores, peers, settings.backup, time.time)
    backups = Backups(stores, cluster, placement, settings.backup, settings.quorum.write)

    # Where it is reached
    memory = MemoryServicer(remember, recall, manage, reinforce, consolidate, forget, profile)
    service.expose(memory_pb2.DESCRIPTOR.services_by_name["MemoryService"], memory)
    service.expose(chat_pb2.DESCRIPTOR.services_by_name["ChatService"], ChatServicer(chat))
    service.expose(model_pb2.DESCRIPTOR.services_by_name["ModelService"], ModelServicer(Models(llm, embedder, space)))
    service.expose(admin_pb2.DESCRIPTOR.services_by_name["AdminService"], AdminServicer(admin, backups))
    if settings.rest.enabled:
        app = build_app(service.dispatcher(), settings.rest, lambda: _health(service))
        service.attach(RestServer(app, settings.rest, service.tls if settings.rest.tls else None))


def authenticator(settings: AuthSettings) -> Authenticator:
    """Tokens where there are any, else everybody."""
    if not settings.tokens:
        return AnonymousAuthenticator(frozenset(settings.tenants) or None)
    return TokenAuthenticator(
        {t.token.get_secret_value(): Principal(t.name, frozenset(t.tenants), operator=t.operator) for t in settings.tokens}
    )


def _extractor(model: LlmRemote, settings: LearningSettings) -> Extractor:
    rules = RulesExtractor()
    return LlmExtractor(model, rules, settings) if settings.extractor == "llm" else rules


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _health(service: Service) -> HealthReport:
    return HealthReport(service.serving, service.name, service.instance, service.version, time.time() - service.started_at)


def _status(service: Service) -> admin_pb2.ServiceStatus:
    status = admin_pb2.ServiceStatus(
        service=service.name, instance=service.instance, address=service.address, reachable=True, version=service.version
    )
    status.uptime.FromSeconds(int(time.time() - service.started_at))
    return status
