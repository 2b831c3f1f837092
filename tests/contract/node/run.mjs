// node run.mjs: runs one case of one client for each line of its input: {"base", "apiKey", "client", "name", "model"}.
// Prints one JSON object per line: the result that the client returned, or the error that it raised.
import { createInterface } from 'node:readline'
import Anthropic from '@anthropic-ai/sdk'
import { createAnthropic } from '@ai-sdk/anthropic'
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateObject, generateText, stepCountIs, streamText, tool } from 'ai'
import OpenAI from 'openai'
import { z } from 'zod'

let base, apiKey, model, openai, anthropic // of the case that is running

const prompt = 'Hi'
const messages = [{ role: 'user', content: prompt }]
const schema = { type: 'object', properties: { q: { type: 'string' } }, required: ['q'], additionalProperties: false }
const look = (input) => `found ${input.q}`
const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

// ---- OpenAI

const chat = {
  async chat() {
    const reply = await openai.chat.completions.create({ model, messages, max_completion_tokens: 50 })
    const { prompt_tokens: input, completion_tokens: output } = reply.usage
    return { text: reply.choices[0].message.content, finish: reply.choices[0].finish_reason, input, output }
  },
  async stream() {
    const stream = openai.chat.completions.stream({ model, messages, stream_options: { include_usage: true } })
    const pieces = []
    stream.on('content', (delta) => delta && pieces.push(delta))
    const reply = await stream.finalChatCompletion()
    const { prompt_tokens: input, completion_tokens: output } = reply.usage
    return { text: reply.choices[0].message.content, pieces, finish: reply.choices[0].finish_reason, input, output }
  },
  async tools() {
    const runner = openai.chat.completions.runTools({
      model,
      messages,
      tools: [{ type: 'function', function: { name: 'look', parameters: schema, parse: JSON.parse, function: look } }],
    })
    const text = await runner.finalContent()
    const results = runner.messages.filter((message) => message.role === 'tool').map((message) => message.content)
    return { text, results }
  },
  async structured() {
    const response_format = { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } }
    const reply = await openai.chat.completions.create({ model, messages, response_format })
    return JSON.parse(reply.choices[0].message.content)
  },
  async image() {
    const image_url = { url: `data:image/png;base64,${pixel}` }
    const content = [{ type: 'text', text: prompt }, { type: 'image_url', image_url }]
    const reply = await openai.chat.completions.create({ model, messages: [{ role: 'user', content }] })
    return { text: reply.choices[0].message.content }
  },
  async embeddings() {
    const reply = await openai.embeddings.create({ model, input: ['a', 'b'] })
    return { count: reply.data.length, numbers: reply.data[0].embedding.length }
  },
  async models() {
    const names = []
    for await (const item of openai.models.list()) names.push(item.id)
    return { names }
  },
}

const responses = {
  async chat() {
    const reply = await openai.responses.create({ model, input: prompt })
    return { text: reply.output_text, finish: reply.status, input: reply.usage.input_tokens }
  },
  async image() {
    const image_url = `data:image/png;base64,${pixel}`
    const content = [{ type: 'input_text', text: prompt }, { type: 'input_image', detail: 'auto', image_url }]
    return { text: (await openai.responses.create({ model, input: [{ role: 'user', content }] })).output_text }
  },
  async stream() {
    const stream = openai.responses.stream({ model, input: prompt })
    const pieces = []
    for await (const event of stream) if (event.type === 'response.output_text.delta') pieces.push(event.delta)
    const reply = await stream.finalResponse()
    return { text: reply.output_text, pieces, finish: reply.status, input: reply.usage.input_tokens }
  },
}

// What the model answered goes back as it came, as OpenAI's documents tell it.
responses.tools = async () => {
  const input = [...messages]
  const results = []
  for (;;) {
    const tools = [{ type: 'function', name: 'look', parameters: schema, strict: true }]
    const reply = await openai.responses.create({ model, input, tools })
    input.push(...reply.output)
    const calls = reply.output.filter((item) => item.type === 'function_call')
    if (!calls.length) return { text: reply.output_text, results }
    for (const call of calls) {
      results.push(look(JSON.parse(call.arguments)))
      input.push({ type: 'function_call_output', call_id: call.call_id, output: results.at(-1) })
    }
  }
}

// ---- Anthropic

const textOf = (message) => message.content.filter((block) => block.type === 'text').map((block) => block.text).join('')

const claude = {
  async chat() {
    const reply = await anthropic.messages.create({ model, messages, max_tokens: 50 })
    const { input_tokens: input, output_tokens: output } = reply.usage
    return { text: textOf(reply), finish: reply.stop_reason, input, output }
  },
  async stream() {
    const stream = anthropic.messages.stream({ model, messages, max_tokens: 50 })
    const pieces = []
    stream.on('text', (delta) => pieces.push(delta))
    const reply = await stream.finalMessage()
    const { input_tokens: input, output_tokens: output } = reply.usage
    return { text: textOf(reply), pieces, finish: reply.stop_reason, input, output }
  },
  async tools() {
    const turns = [...messages]
    const results = []
    for (;;) {
      const reply = await anthropic.messages
        .stream({ model, messages: turns, max_tokens: 500, tools: [{ name: 'look', input_schema: schema }] })
        .finalMessage()
      const calls = reply.content.filter((block) => block.type === 'tool_use')
      if (!calls.length) return { text: textOf(reply), results }
      const content = calls.map((call) => ({ type: 'tool_result', tool_use_id: call.id, content: look(call.input) }))
      results.push(...content.map((block) => block.content))
      turns.push({ role: 'assistant', content: reply.content }, { role: 'user', content })
    }
  },
  async structured() {
    const output_config = { format: { type: 'json_schema', schema } }
    return JSON.parse(textOf(await anthropic.messages.create({ model, messages, max_tokens: 500, output_config })))
  },
  async image() {
    const source = { type: 'base64', media_type: 'image/png', data: pixel }
    const content = [{ type: 'text', text: prompt }, { type: 'image', source }]
    return { text: textOf(await anthropic.messages.create({ model, messages: [{ role: 'user', content }], max_tokens: 50 })) }
  },
  async models() {
    const names = []
    for await (const item of anthropic.models.list({ limit: 3 })) names.push(item.id)
    return { names }
  },
}

// Anthropic's own loop, which sends fields that only its vendor knows.
const runner = {
  async tools() {
    const results = []
    const run = (input) => (results.push(look(input)), results.at(-1))
    const tool = betaZodTool({ name: 'look', description: 'Look', inputSchema: z.object({ q: z.string() }), run })
    const reply = await anthropic.beta.messages.toolRunner({ model, messages, max_tokens: 500, tools: [tool] })
    return { text: textOf(reply), results }
  },
}

// ---- Vercel's ai package

const vercel = (languageModel) => ({
  async chat() {
    const { text, finishReason, usage } = await generateText({ model: languageModel, prompt, maxOutputTokens: 50 })
    return { text, finish: finishReason, input: usage.inputTokens, output: usage.outputTokens }
  },
  async stream() {
    const result = streamText({ model: languageModel, prompt, maxOutputTokens: 50, onError() {} })
    const pieces = []
    for await (const part of result.fullStream) {
      if (part.type === 'error') throw part.error
      if (part.type === 'text-delta') pieces.push(part.text)
    }
    const usage = await result.usage
    return { text: pieces.join(''), pieces, finish: await result.finishReason, input: usage.inputTokens, output: usage.outputTokens }
  },
  async tools() {
    const { text, steps } = await generateText({
      model: languageModel,
      prompt,
      stopWhen: stepCountIs(5),
      tools: { look: tool({ description: 'Look', inputSchema: z.object({ q: z.string() }), execute: look }) },
    })
    return { text, results: steps.flatMap((step) => step.toolResults.map((result) => result.output)) }
  },
  async image() {
    const content = [{ type: 'text', text: prompt }, { type: 'image', image: pixel, mediaType: 'image/png' }]
    return { text: (await generateText({ model: languageModel, messages: [{ role: 'user', content }] })).text }
  },
  async structured() {
    return (await generateObject({ model: languageModel, prompt, schema: z.object({ q: z.string() }) })).object
  },
})

const clients = {
  openai: () => chat,
  responses: () => responses,
  anthropic: () => claude,
  runner: () => runner,
  'ai-openai': () => vercel(createOpenAI({ baseURL: `${base}/v1`, apiKey }).chat(model)),
  'ai-compatible': () => vercel(createOpenAICompatible({ name: 'service', baseURL: `${base}/v1`, apiKey, includeUsage: true })(model)),
  'ai-responses': () => vercel(createOpenAI({ baseURL: `${base}/v1`, apiKey })(model)),
  'ai-anthropic': () => vercel(createAnthropic({ baseURL: `${base}/v1`, apiKey })(model)),
}

const print = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`)
console.log = console.info = console.error // what the packages print is no answer

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  ;({ base, apiKey, model } = asked)
  openai = new OpenAI({ baseURL: `${base}/v1`, apiKey, maxRetries: 2 })
  anthropic = new Anthropic({ baseURL: base, apiKey, maxRetries: 2 })
  try {
    print(await clients[asked.client]()[asked.name]())
  } catch (error) {
    const { status, statusCode, code, type, message } = error.lastError ?? error
    const kind = (error.lastError ?? error).constructor.name
    print({ error: kind, status: status ?? statusCode ?? null, code: code ?? null, type: type ?? null, message })
  }
}
