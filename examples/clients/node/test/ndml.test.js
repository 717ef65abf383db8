// Runs against a live suite: NDML_ADDRESS=127.0.0.1:7700 npm test. Uses users of its own.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { NdmlClient, NdmlError } from 'ndml-client';

/** @type {NdmlClient} */
let client;
const run = crypto.randomUUID();
const ann = { user: `node-ann-${run}`, session: 's1' };
const bob = { user: `node-bob-${run}` };

before(() => {
  assert.ok(process.env.NDML_ADDRESS, 'set NDML_ADDRESS to the gateway, host:port');
  client = new NdmlClient();
});
after(() => client.close());

test('what is added is found, by its owner only', async () => {
  const saidAt = new Date('2026-05-20T18:00:00.250Z');
  const added = await client.add('My dog Pixel sleeps under the piano.', ann, { speaker: 'Ann', saidAt, kind: 'semantic', metadata: { topic: 'pets' } });
  assert.match(added.traceId, /^[0-9a-f]{32}$/);
  await client.add('The train to Porto leaves at nine.', ann);
  const hits = await client.search('dog Pixel', ann, { consistencyToken: added.consistencyToken });
  const { score, ...first } = hits[0];
  assert.deepEqual(first, { traceId: added.traceId, text: 'My dog Pixel sleeps under the piano.', speaker: 'Ann', saidAt, metadata: { topic: 'pets' } });
  assert.ok(score !== undefined && score >= (hits[1]?.score ?? -1));
  assert.deepEqual(await client.search('dog Pixel', bob), []);
});

test('a repeat with the same request id writes once', async () => {
  const scope = { user: `node-once-${run}` };
  const first = await client.add('once', scope, { requestId: 'r1' });
  const second = await client.add('once', scope, { requestId: 'r1' });
  assert.deepEqual([first.replayed, second.replayed, second.traceId], [false, true, first.traceId]);
});

test('export streams everything in order', async () => {
  const scope = { user: `node-export-${run}` };
  for (const text of ['one', 'two', 'three']) await client.add(text, scope);
  const texts = [];
  for await (const memory of client.export(scope)) texts.push(memory.text);
  assert.deepEqual(texts, ['one', 'two', 'three']);
});

test('an error says its reason and its field', async () => {
  await assert.rejects(client.search('x', ann, { k: -1 }), (error) => {
    assert.ok(error instanceof NdmlError);
    assert.equal(error.code, 'INVALID_ARGUMENT');
    assert.equal(error.reason, 'FIELD_INVALID');
    assert.deepEqual(error.violations.map(({ field }) => field), ['k']);
    return true;
  });
  await assert.rejects(client.delete('0'.repeat(32), ann), { name: 'NdmlError', code: 'NOT_FOUND', reason: 'TRACE_NOT_FOUND' });
});

test('a stream ends with its reason where no model is configured, and answers where one is', async () => {
  const pieces = [];
  try {
    for await (const piece of client.chat('Where does Pixel sleep?', ann)) pieces.push(piece);
    assert.ok(pieces.join('').length > 0);
  } catch (error) {
    assert.ok(error instanceof NdmlError, String(error));
    assert.deepEqual([error.code, error.reason], ['FAILED_PRECONDITION', 'MODEL_NOT_CONFIGURED']);
    assert.deepEqual(pieces, []);
  }
});
