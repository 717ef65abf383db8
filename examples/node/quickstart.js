import { NdmlClient } from './ndml.js';

const client = new NdmlClient();
const ann = { user: 'ann' };
await client.add('I moved to Lisbon in May.', ann, { speaker: 'Ann', saidAt: new Date('2026-05-20T18:00:00Z') });
for (const hit of await client.search('Where does Ann live?', ann)) console.log(hit.score?.toFixed(3), hit.text);
client.close();
