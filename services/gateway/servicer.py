"""proto <-> cores, for gRPC and REST alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypedDict

from ndml.runtime.call import Call
from ndml.v1 import admin_pb2, chat_pb2, memory_pb2, model_pb2, types_pb2
from ndml.wire import error_to_status
from services.gateway.admin import Admin
from services.gateway.backups import Backups
from services.gateway.chat import Chat
from services.gateway.consolidate import Consolidate
from services.gateway.forget import Forget
from services.gateway.manage import Manage
from services.gateway.models import Models
from services.gateway.profile import Profile
from services.gateway.recall import Recall
from services.gateway.reinforce import Reinforce
from services.gateway.remember import Added, Remember
from services.gateway.tokens import write_consistency_token


class _Wishes(TypedDict):
    deduplicate: bool
    consistency: types_pb2.Consistency


class MemoryServicer:
    """ndml.v1.MemoryService."""

    def __init__(
        self,
        remember: Remember,
        recall: Recall,
        manage: Manage,
        reinforce: Reinforce,
        consolidate: Consolidate,
        forget: Forget,
        profile: Profile,
    ) -> None:
        self._remember = remember
        self._recall = recall
        self._manage = manage
        self._reinforce = reinforce
        self._consolidate = consolidate
        self._forget = forget
        self._profile = profile

    async def AddMemory(self, request: memory_pb2.AddMemoryRequest, call: Call) -> memory_pb2.AddMemoryResponse:
        wishes: _Wishes = {"deduplicate": request.deduplicate, "consistency": request.consistency}
        added = await self._remember.add([request.memory], request.request_id, call, lambda _: "memory", **wishes)
        [item] = added.items
        if item.error is not None:
            raise item.error
        return _added(item, write_consistency_token(added.seen))

    async def BatchAddMemories(self, request: memory_pb2.BatchAddMemoriesRequest, call: Call) -> memory_pb2.BatchAddMemoriesResponse:
        wishes: _Wishes = {"deduplicate": request.deduplicate, "consistency": request.consistency}
        added = await self._remember.add(request.memories, request.request_id, call, lambda i: f"memories[{i}]", **wishes)
        token = write_consistency_token(added.seen)
        return memory_pb2.BatchAddMemoriesResponse(results=[_result(item) for item in added.items], consistency_token=token)

    async def SearchMemories(self, request: memory_pb2.SearchMemoriesRequest, call: Call) -> bytes:
        return await self._recall.search(request, call)

    async def BatchSearchMemories(self, request: memory_pb2.BatchSearchMemoriesRequest, call: Call) -> bytes:
        return await self._recall.search_all(request.searches, call)

    async def GetMemory(self, request: memory_pb2.GetMemoryRequest, call: Call) -> memory_pb2.GetMemoryResponse:
        return await self._manage.get(request, call)

    async def ListMemories(self, request: memory_pb2.ListMemoriesRequest, call: Call) -> memory_pb2.ListMemoriesResponse:
        return await self._manage.list_(request, call)

    async def UpdateMemory(self, request: memory_pb2.UpdateMemoryRequest, call: Call) -> memory_pb2.UpdateMemoryResponse:
        return await self._manage.update(request, call)

    async def DeleteMemory(self, request: memory_pb2.DeleteMemoryRequest, call: Call) -> memory_pb2.DeleteMemoryResponse:
        return await self._manage.delete(request, call)

    def ForgetScope(self, request: memory_pb2.ForgetScopeRequest, call: Call) -> AsyncIterator[memory_pb2.ForgetScopeResponse]:
        return self._forget.forget(request, call)

    async def ResolveConflict(self, request: memory_pb2.ResolveConflictRequest, call: Call) -> memory_pb2.ResolveConflictResponse:
        return await self._manage.resolve(request, call)

    async def ReinforceMemories(self, request: memory_pb2.ReinforceMemoriesRequest, call: Call) -> memory_pb2.ReinforceMemoriesResponse:
        return await self._reinforce.reinforce(request, call)

    def ConsolidateMemories(
        self, request: memory_pb2.ConsolidateMemoriesRequest, call: Call
    ) -> AsyncIterator[memory_pb2.ConsolidateMemoriesResponse]:
        return self._consolidate.consolidate(request, call)

    def ExportMemories(self, request: memory_pb2.ExportMemoriesRequest, call: Call) -> AsyncIterator[memory_pb2.ExportMemoriesResponse]:
        return self._manage.export(request, call)

    async def ImportMemories(
        self, requests: AsyncIterator[memory_pb2.ImportMemoriesRequest], call: Call
    ) -> memory_pb2.ImportMemoriesResponse:
        return await self._remember.import_(requests, call)

    async def GetProfile(self, request: memory_pb2.GetProfileRequest, call: Call) -> memory_pb2.GetProfileResponse:
        return await self._profile.get(request, call)

    async def GetMemoryStats(self, request: memory_pb2.GetMemoryStatsRequest, call: Call) -> memory_pb2.GetMemoryStatsResponse:
        return await self._manage.stats(request, call)


def _added(item: Added, token: str) -> memory_pb2.AddMemoryResponse:
    return memory_pb2.AddMemoryResponse(
        trace_id=item.trace_id,
        replayed=item.existed,
        learned_at=item.learned_at,
        consistency_token=token,
        gate=item.gate,
        deduplicated=item.deduplicated,
    )


def _result(item: Added) -> memory_pb2.AddResult:
    if item.error is not None:
        return memory_pb2.AddResult(error=error_to_status(item.error))
    return memory_pb2.AddResult(trace_id=item.trace_id, replayed=item.existed, gate=item.gate, deduplicated=item.deduplicated)


class ChatServicer:
    """ndml.v1.ChatService."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def Chat(self, request: chat_pb2.ChatRequest, call: Call) -> AsyncIterator[chat_pb2.ChatResponse]:
        return self._chat.chat(request, call)


class ModelServicer:
    """ndml.v1.ModelService."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ListModels(self, _request: model_pb2.ListModelsRequest, call: Call) -> model_pb2.ListModelsResponse:
        return await self._models.list_(call)

    async def EmbedTexts(self, request: model_pb2.EmbedTextsRequest, call: Call) -> model_pb2.EmbedTextsResponse:
        return await self._models.embed(request, call)


class AdminServicer:
    """ndml.v1.AdminService."""

    def __init__(self, admin: Admin, backups: Backups) -> None:
        self._admin = admin
        self._backups = backups

    async def GetClusterStatus(self, _request: admin_pb2.GetClusterStatusRequest, _call: Call) -> admin_pb2.GetClusterStatusResponse:
        return await self._admin.status()

    async def GetPlacement(self, request: admin_pb2.GetPlacementRequest, call: Call) -> admin_pb2.GetPlacementResponse:
        return self._admin.placement(request.tenant or call.tenant, request.user)

    async def CreateSnapshot(self, _request: admin_pb2.CreateSnapshotRequest, _call: Call) -> admin_pb2.CreateSnapshotResponse:
        return await self._admin.snapshot()

    def DrainNode(self, request: admin_pb2.DrainNodeRequest, _call: Call) -> AsyncIterator[admin_pb2.DrainNodeResponse]:
        return self._admin.drain(request.node_id)

    def Backup(self, _request: admin_pb2.BackupRequest, _call: Call) -> AsyncIterator[admin_pb2.BackupResponse]:
        return self._backups.backup()

    async def Restore(self, requests: AsyncIterator[admin_pb2.RestoreRequest], _call: Call) -> admin_pb2.RestoreResponse:
        return await self._backups.restore(requests)
