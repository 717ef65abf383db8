// OpenAI's own client for Node, with nothing changed but its base URL. NDML_REST is the gateway's URL, NDML_MODEL its chat model.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import OpenAI from "openai";

const model = process.env.NDML_MODEL;
const client = new OpenAI({ baseURL: `${process.env.NDML_REST}/v1`, apiKey: "any", maxRetries: 0, timeout: 60_000 });
const newUser = () => `user-${randomUUID().slice(0, 8)}`;
const asks = (content) => [{ role: "user", content }];
const tools = [
  {
    type: "function",
    function: { name: "look_up", parameters: { type: "object", properties: { about: { type: "string" } } } },
  },
];

test("a chat remembers what an earlier one said, and cites it", async () => {
  const user = newUser();
  const told = await client.chat.completions.create({
    model, user, messages: asks("I moved to Porto in May."), metadata: { learning: "wait" },
  });
  assert.ok(told.ndml.learned_trace_ids.length > 0);
  const { data, response } = await client.chat.completions
    .create({ model, user, messages: asks("Where do I live?"), metadata: { consistency_token: told.ndml.consistency_token } })
    .withResponse();
  assert.match(data.choices[0].message.content, /Porto/);
  assert.equal(data.choices[0].finish_reason, "stop");
  assert.ok(data.usage.total_tokens > 0);
  assert.equal(data.ndml.citations[0].mentioned, true);
  assert.equal(response.headers.get("ndml-memory"), "on");
});

test("without a user there is no memory", async () => {
  const { data, response } = await client.chat.completions.create({ model, messages: asks("Where do I live?") }).withResponse();
  assert.match(response.headers.get("ndml-memory"), /^off; no user given/);
  assert.match(data.choices[0].message.content, /^I remember nothing/);
});

test("a stream comes in pieces and ends with usage", async () => {
  const stream = await client.chat.completions.create({
    model, user: newUser(), messages: asks("one two three"), stream: true, stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.match(text, /You said: one two three$/);
  assert.ok(chunks.length > 5);
  assert.equal(chunks.at(-1).usage.completion_tokens, text.split(" ").length);
  assert.equal(chunks.filter((chunk) => chunk.ndml).length, 1);
});

test("a stream that is left ends the call", async () => {
  const stream = await client.chat.completions.create({ model, user: newUser(), messages: asks("word ".repeat(2000)), stream: true });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  assert.equal((await client.models.list()).data.length, 3);
});

test("tools go there and back, whole and streamed", async () => {
  const user = newUser();
  const question = asks("What is Delft known for?");
  const first = await client.chat.completions.create({ model, user, messages: question, tools });
  const message = first.choices[0].message;
  assert.equal(first.choices[0].finish_reason, "tool_calls");
  assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { about: "What is Delft known for?" });
  const answer = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "blue tiles" };
  const second = await client.chat.completions.create({ model, user, messages: [...question, message, answer], tools });
  assert.equal(second.choices[0].message.content, "The tool says: blue tiles");
  const streamed = await client.chat.completions.stream({ model, user, messages: question, tools }).finalChatCompletion();
  assert.equal(streamed.choices[0].message.tool_calls[0].function.name, "look_up");
});

test("models and embeddings", async () => {
  const ids = [];
  for await (const each of client.models.list()) ids.push(each.id);
  assert.deepEqual(ids.sort(), ["all-MiniLM-L6-v2", "gpt-4o-mini", model].sort()); // an alias of rest.model_aliases among them
  assert.equal((await client.models.retrieve(model)).id, model);
  const made = await client.embeddings.create({ model: "all-MiniLM-L6-v2", input: ["one", "two"] });
  const plain = await client.embeddings.create({ model: "all-MiniLM-L6-v2", input: "one", encoding_format: "float" });
  assert.deepEqual(made.data.map((row) => row.embedding.length), [384, 384]);
  assert.ok(made.data[0].embedding.every((value, at) => Math.abs(value - plain.data[0].embedding[at]) < 1e-6));
});

test("errors are the classes that users catch", async () => {
  const wrong = [
    [{ n: 2 }, OpenAI.BadRequestError, "n"],
    [{ model: "gpt-9" }, OpenAI.NotFoundError, "model"],
    [{ response_format: { type: "json_object" } }, OpenAI.BadRequestError, "response_format"],
    [{ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:," } }] }] }, OpenAI.BadRequestError, "messages[0].content[0]"],
  ];
  for (const [wishes, kind, param] of wrong) {
    const call = client.chat.completions.create({ model, messages: asks("hi"), user: newUser(), ...wishes });
    await assert.rejects(call, (error) => error instanceof kind && error.param === param && error.message.length > 10);
  }
});
