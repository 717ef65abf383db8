/** A small NDML client: gRPC by @grpc/grpc-js, messages and clients generated from protos/ (`npm run generate`). */

import { readFileSync } from 'node:fs';
import grpc from '@grpc/grpc-js';
import { ChatRequest, ChatServiceClient, FinishReason, Role, type ChatResponse, type Citation } from './gen/ndml/v1/chat.js';
import { AddMemoryRequest, DeleteMemoryRequest, ExportMemoriesRequest, MemoryServiceClient, SearchMemoriesRequest } from './gen/ndml/v1/memory.js';
import type { AddMemoryResponse, DeleteMemoryResponse, ExportMemoriesResponse, NewMemory, SearchMemoriesResponse } from './gen/ndml/v1/memory.js';
import { TraceKind, type MemoryTrace, type Scope as FullScope } from './gen/ndml/v1/types.js';
import { BadRequest, ErrorInfo, RetryInfo } from './gen/google/rpc/error_details.js';
import { Status } from './gen/google/rpc/status.js';

export type { AddMemoryResponse, Citation, MemoryTrace };

const DETAILS = 'grpc-status-details-bin';

// Reads, and writes that carry a request_id: the ones that give the same result when they run twice. An update or a delete is not repeated.
const REPEATABLE = ['AddMemory', 'BatchAddMemories', 'SearchMemories', 'BatchSearchMemories', 'GetMemory', 'ListMemories', 'GetMemoryStats'];
const SERVICE_CONFIG = JSON.stringify({
  methodConfig: [
    {
      name: REPEATABLE.map((method) => ({ service: 'ndml.v1.MemoryService', method })),
      retryPolicy: { maxAttempts: 4, initialBackoff: '0.1s', maxBackoff: '2s', backoffMultiplier: 2, retryableStatusCodes: ['UNAVAILABLE'] },
    },
  ],
});

/** One field that breaks its rule. */
export interface Violation {
  field: string;
  description: string;
}

/** Why a call failed. */
export class NdmlError extends Error {
  override readonly name = 'NdmlError';
  /** Canonical code, for example "NOT_FOUND". */
  readonly code: string;
  /** Reason as in ndml/v1/errors.proto, for example "TRACE_NOT_FOUND"; empty where gRPC itself failed. */
  readonly reason: string = '';
  /** Fields that break their rule. */
  readonly violations: Violation[] = [];
  /** Milliseconds after which to come back; undefined where the server did not say. */
  readonly retryAfterMs: number | undefined;

  constructor(cause: grpc.ServiceError) {
    const [bytes] = cause.metadata?.get(DETAILS) ?? [];
    const status = Buffer.isBuffer(bytes) ? Status.decode(bytes) : undefined;
    super(status?.message || cause.details, { cause });
    this.code = grpc.status[cause.code] ?? 'UNKNOWN';
    for (const { typeUrl, value } of status?.details ?? []) {
      const type = typeUrl.split('/').pop();
      if (type === 'google.rpc.ErrorInfo') this.reason = ErrorInfo.decode(value).reason;
      if (type === 'google.rpc.BadRequest')
        this.violations = BadRequest.decode(value).fieldViolations.map(({ field, description }) => ({ field, description }));
      if (type === 'google.rpc.RetryInfo') {
        const delay = RetryInfo.decode(value).retryDelay;
        this.retryAfterMs = delay && delay.seconds * 1000 + delay.nanos / 1e6;
      }
    }
  }
}

/** Whose memory: a write records agent and session, a read that names them sees only what carries the same. */
export type Scope = Pick<FullScope, 'user'> & Partial<Pick<FullScope, 'agent' | 'session'>>;

export interface Options {
  /** host:port of the gateway. Default: NDML_ADDRESS, else 127.0.0.1:7700. */
  address?: string;
  /** Customer of the deployment. Default: the token's. */
  tenant?: string;
  /** Sent as `authorization: Bearer …`; give it over TLS only. */
  token?: string;
  /** PEM file of the authorities to trust: the channel is TLS. `true`: TLS with the roots that come with Node. */
  tls?: string | true;
  /** Deadline of a call; a stream has six times that. */
  timeoutMs?: number;
}

export interface AddOptions {
  speaker?: string;
  saidAt?: Date;
  kind?: 'episodic' | 'semantic' | 'procedural';
  metadata?: Record<string, string>;
  embedding?: Float32Array;
  /** The same id writes once, so a repeat is safe. Default: a new one. */
  requestId?: string;
}

export interface SearchOptions {
  k?: number;
  explain?: boolean;
  /** From a write: the search sees that write, whichever copy answers. */
  consistencyToken?: string;
}

export interface Memory {
  traceId: string;
  text: string;
  speaker: string;
  saidAt: Date | undefined;
  metadata: Record<string, string>;
  score?: number;
}

type Done<Response> = (error: grpc.ServiceError | null, response: Response) => void;

export class NdmlClient {
  /** The generated clients, for what has no method here. Pass `metadata` along. */
  readonly memory: MemoryServiceClient;
  readonly talk: ChatServiceClient;
  readonly metadata = new grpc.Metadata();
  readonly #timeoutMs: number;

  constructor({ address = process.env.NDML_ADDRESS ?? '127.0.0.1:7700', tenant = '', token = '', tls, timeoutMs = 10_000 }: Options = {}) {
    const credentials = tls ? grpc.credentials.createSsl(tls === true ? null : readFileSync(tls)) : grpc.credentials.createInsecure();
    this.memory = new MemoryServiceClient(address, credentials, { 'grpc.service_config': SERVICE_CONFIG });
    this.talk = new ChatServiceClient(address, credentials);
    this.#timeoutMs = timeoutMs;
    if (tenant) this.metadata.set('ndml-tenant', tenant);
    if (token) this.metadata.set('authorization', `Bearer ${token}`);
  }

  /** Stores one memory; when this resolves it is on disk and findable. */
  add(text: string, scope: Scope, options: AddOptions = {}): Promise<AddMemoryResponse> {
    const { kind, embedding, requestId = crypto.randomUUID(), ...rest } = options;
    const memory: Partial<NewMemory> = { ...rest, text, kind: kind && TraceKind[kind.toUpperCase() as keyof typeof TraceKind] };
    const request = AddMemoryRequest.fromPartial({ requestId, memory: { ...memory, scope, embedding: embedding && { vector: littleEndian(embedding) } } });
    return this.#unary<AddMemoryResponse>((done) => this.memory.addMemory(request, this.metadata, this.#deadline(), done));
  }

  /** The memories nearest to a text, best first. */
  async search(text: string, scope: Scope, options: SearchOptions = {}): Promise<Memory[]> {
    const request = SearchMemoriesRequest.fromPartial({ k: 10, ...options, scope, query: { $case: 'text', value: text } });
    const { hits } = await this.#unary<SearchMemoriesResponse>((done) => this.memory.searchMemories(request, this.metadata, this.#deadline(), done));
    return hits.flatMap(({ trace, score }) => (trace ? [{ ...memoryOf(trace), score }] : []));
  }

  /** Removes a memory for good; false where there was none to remove. Throws TRACE_NOT_FOUND. */
  async delete(traceId: string, scope: Scope): Promise<boolean> {
    const request = DeleteMemoryRequest.fromPartial({ traceId, scope });
    return (await this.#unary<DeleteMemoryResponse>((done) => this.memory.deleteMemory(request, this.metadata, this.#deadline(), done))).deleted;
  }

  /** Every memory of the scope, first learned first. */
  async *export(scope: Scope): AsyncGenerator<Memory, void> {
    const request = ExportMemoriesRequest.fromPartial({ scope });
    const parts = this.#stream<ExportMemoriesResponse>(this.memory.exportMemories(request, this.metadata, this.#deadline(6)));
    for await (const part of parts) yield* part.traces.map(memoryOf);
  }

  /** Asks the language model; yields the answer piece by piece, returns the memories that it cites. */
  async *chat(question: string, scope: Scope): AsyncGenerator<string, Citation[]> {
    const request = ChatRequest.fromPartial({ scope, messages: [{ role: Role.USER, content: question }] });
    let citations: Citation[] = [];
    for await (const part of this.#stream<ChatResponse>(this.talk.chat(request, this.metadata, this.#deadline(6)))) {
      if (part.delta) yield part.delta;
      if (part.finishReason !== FinishReason.UNSPECIFIED) citations = part.citations;
    }
    return citations;
  }

  close(): void {
    this.memory.close();
    this.talk.close();
  }

  #deadline(times = 1): grpc.CallOptions {
    return { deadline: Date.now() + times * this.#timeoutMs };
  }

  #unary<Response>(call: (done: Done<Response>) => void): Promise<Response> {
    return new Promise((resolve, reject) => call((error, response) => (error ? reject(new NdmlError(error)) : resolve(response))));
  }

  /** Ends the call when the caller stops reading. */
  async *#stream<Response>(call: grpc.ClientReadableStream<Response>): AsyncGenerator<Response, void> {
    try {
      yield* call as AsyncIterable<Response>;
    } catch (error) {
      throw new NdmlError(error as grpc.ServiceError);
    } finally {
      call.cancel();
    }
  }
}

function memoryOf({ traceId, text, speaker, saidAt, metadata }: MemoryTrace): Memory {
  return { traceId, text, speaker, saidAt, metadata };
}

/** Embeddings travel as little-endian float32 on every machine. */
function littleEndian(vector: Float32Array): Buffer {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => bytes.writeFloatLE(value, index * 4));
  return bytes;
}
