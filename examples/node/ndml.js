// A small NDML client for Node: gRPC straight from the protos, no generated code.

import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const PROTOS = fileURLToPath(new URL('../../protos', import.meta.url));
const definition = protoLoader.loadSync(
  ['ndml/v1/memory.proto', 'ndml/v1/chat.proto', 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
  { includeDirs: [PROTOS, `${PROTOS}/third_party`], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true },
);
const { ndml } = /** @type {any} */ (grpc.loadPackageDefinition(definition));
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

/**
 * Why a call failed.
 * @typedef {{ field: string, description: string }} Violation
 */
export class NdmlError extends Error {
  /** @param {import('@grpc/grpc-js').ServiceError} cause */
  constructor(cause) {
    const details = decodeDetails(cause);
    super(details.message || cause.details, { cause });
    this.name = 'NdmlError';
    /** Canonical code, for example "NOT_FOUND". */
    this.code = grpc.status[cause.code];
    /** Reason as in ndml/v1/errors.proto, for example "TRACE_NOT_FOUND"; empty where gRPC itself failed. */
    this.reason = details.reason;
    /** @type {Violation[]} Fields that break their rule. */
    this.violations = details.violations;
    /** Milliseconds after which to come back; undefined where the server did not say. */
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** Reads google.rpc.Status with ErrorInfo, BadRequest and RetryInfo out of a failed call's metadata. */
function decodeDetails(/** @type {import('@grpc/grpc-js').ServiceError} */ cause) {
  const found = { message: '', reason: '', violations: /** @type {Violation[]} */ ([]), retryAfterMs: /** @type {number | undefined} */ (undefined) };
  const [bytes] = cause.metadata?.get(DETAILS) ?? [];
  if (!bytes) return found;
  const status = decode('google.rpc.Status', bytes);
  found.message = status.message;
  for (const detail of status.details) {
    const name = detail.type_url.split('/').pop();
    const value = name in definition ? decode(name, detail.value) : undefined;
    if (name === 'google.rpc.ErrorInfo') found.reason = value.reason;
    if (name === 'google.rpc.BadRequest') found.violations = value.field_violations.map(({ field, description }) => ({ field, description }));
    if (name === 'google.rpc.RetryInfo') found.retryAfterMs = value.retry_delay.seconds * 1000 + value.retry_delay.nanos / 1e6;
  }
  return found;
}

/** @returns {any} */
function decode(/** @type {string} */ name, /** @type {Buffer} */ bytes) {
  return /** @type {any} */ (definition[name]).deserialize(bytes);
}

/**
 * @typedef {{ user: string, agent?: string, session?: string }} Scope
 * @typedef {{ address?: string, tenant?: string, token?: string, timeoutMs?: number }} Options
 * @typedef {{ speaker?: string, saidAt?: Date, kind?: 'episodic' | 'semantic' | 'procedural', metadata?: Record<string, string>,
 *   embedding?: Float32Array, requestId?: string }} AddOptions
 * @typedef {{ k?: number, explain?: boolean, consistencyToken?: string }} SearchOptions
 * @typedef {{ traceId: string, text: string, speaker: string, saidAt: Date | undefined, metadata: Record<string, string>, score?: number }} Memory
 */
export class NdmlClient {
  /** @param {Options} [options] */
  constructor({ address = process.env.NDML_ADDRESS ?? '127.0.0.1:7700', tenant = '', token = '', timeoutMs = 10_000 } = {}) {
    const settings = { 'grpc.service_config': SERVICE_CONFIG };
    this.memory = new ndml.v1.MemoryService(address, grpc.credentials.createInsecure(), settings);
    this.talk = new ndml.v1.ChatService(address, grpc.credentials.createInsecure());
    this.timeoutMs = timeoutMs;
    this.metadata = new grpc.Metadata();
    if (tenant) this.metadata.set('ndml-tenant', tenant);
    if (token) this.metadata.set('authorization', `Bearer ${token}`);
  }

  /**
   * Stores one memory; when this resolves it is on disk and findable.
   * @param {string} text @param {Scope} scope @param {AddOptions} [options]
   * @returns {Promise<{ traceId: string, replayed: boolean, consistencyToken: string }>}
   */
  async add(text, scope, { speaker, saidAt, kind, metadata, embedding, requestId = crypto.randomUUID() } = {}) {
    const memory = {
      scope,
      text,
      speaker,
      metadata,
      said_at: saidAt && timestamp(saidAt),
      kind: kind && `TRACE_KIND_${kind.toUpperCase()}`,
      embedding: embedding && { vector: littleEndian(embedding) },
    };
    const response = await this.unary('AddMemory', { request_id: requestId, memory });
    return { traceId: response.trace_id, replayed: response.replayed, consistencyToken: response.consistency_token };
  }

  /**
   * The memories nearest to a text, best first.
   * @param {string} text @param {Scope} scope @param {SearchOptions} [options] @returns {Promise<Memory[]>}
   */
  async search(text, scope, { k = 10, explain = false, consistencyToken = '' } = {}) {
    const response = await this.unary('SearchMemories', { scope, text, k, explain, consistency_token: consistencyToken });
    return response.hits.map((/** @type {any} */ hit) => ({ ...memoryOf(hit.trace), score: hit.score }));
  }

  /** Removes a memory for good. @param {string} traceId @param {Scope} scope */
  async delete(traceId, scope) {
    return (await this.unary('DeleteMemory', { scope, trace_id: traceId })).deleted;
  }

  /** Every memory of the scope, first learned first. @param {Scope} scope @returns {AsyncGenerator<Memory>} */
  async *export(scope) {
    for await (const part of this.stream(this.memory, 'ExportMemories', { scope })) yield* part.traces.map(memoryOf);
  }

  /**
   * Asks the language model; yields the answer piece by piece, returns what was recalled.
   * @param {string} question @param {Scope} scope
   * @returns {AsyncGenerator<string, { number: number, trace_id: string, text: string }[]>}
   */
  async *chat(question, scope) {
    let citations = [];
    for await (const part of this.stream(this.talk, 'Chat', { scope, messages: [{ role: 'ROLE_USER', content: question }] })) {
      if (part.delta) yield part.delta;
      if (part.finish_reason !== 'FINISH_REASON_UNSPECIFIED') citations = part.citations;
    }
    return citations;
  }

  close() {
    this.memory.close();
    this.talk.close();
  }

  /** @param {string} method @param {object} request @returns {Promise<any>} */
  unary(method, request) {
    return new Promise((resolve, reject) => {
      this.memory[method](request, this.metadata, { deadline: Date.now() + this.timeoutMs }, (/** @type {any} */ error, /** @type {any} */ response) =>
        error ? reject(new NdmlError(error)) : resolve(response),
      );
    });
  }

  /** @param {any} service @param {string} method @param {object} request @returns {AsyncGenerator<any>} */
  async *stream(service, method, request) {
    const call = service[method](request, this.metadata, { deadline: Date.now() + 60 * this.timeoutMs });
    try {
      yield* call;
    } catch (error) {
      throw new NdmlError(/** @type {any} */ (error));
    } finally {
      call.cancel();
    }
  }
}

/** @returns {Memory} */
function memoryOf(/** @type {any} */ trace) {
  const saidAt = trace.said_at ? new Date(trace.said_at.seconds * 1000 + trace.said_at.nanos / 1e6) : undefined;
  return { traceId: trace.trace_id, text: trace.text, speaker: trace.speaker, saidAt, metadata: trace.metadata };
}

function timestamp(/** @type {Date} */ time) {
  const seconds = Math.floor(time.getTime() / 1000);
  return { seconds, nanos: (time.getTime() - seconds * 1000) * 1e6 };
}

/** Embeddings travel as little-endian float32 on every machine. */
function littleEndian(/** @type {Float32Array} */ vector) {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => bytes.writeFloatLE(value, index * 4));
  return bytes;
}
