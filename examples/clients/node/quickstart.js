// Two memories in, a search, a chat, and an error with its reason. Settings by environment: see README.md.

import { NdmlClient, NdmlError } from 'ndml-client';

const { NDML_TOKEN: token, NDML_CA: tls, NDML_USER: user = 'ann', NDML_TIMEOUT_S: seconds = '10' } = process.env;
const client = new NdmlClient({ token, tls, timeoutMs: Number(seconds) * 1000 });
const scope = { user };

try {
  // The same requestId writes once, so this program may run again.
  const moved = await client.add('I live in Lisbon.', scope, { requestId: 'lisbon' });
  const dog = await client.add('My dog Pixel hates the vacuum cleaner.', scope, { requestId: 'pixel' });
  console.log(`added ${moved.traceId}\nadded ${dog.traceId}`);

  for (const hit of await client.search('Where do I live?', scope, { k: 2, consistencyToken: dog.consistencyToken }))
    console.log(hit.score?.toFixed(3), hit.text);

  process.stdout.write('chat: ');
  const answer = client.chat('Where do I live?', scope);
  let piece = await answer.next();
  for (; !piece.done; piece = await answer.next()) process.stdout.write(piece.value);
  console.log();
  for (const { number, text } of piece.value) console.log(`cited [${number}] ${text}`);

  await client.search('x', scope, { k: -1 }).catch((error) => {
    if (!(error instanceof NdmlError)) throw error;
    for (const { field, description } of error.violations) console.log(`refused: ${error.code} ${error.reason} ${field}: ${description}`);
  });
} catch (error) {
  if (!(error instanceof NdmlError)) throw error;
  console.error(`error: ${error.code} ${error.reason} ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
