// The gateway: Fastify checks a message by JSON Schema, BullMQ puts it into Redis, and only then comes the 202.

import Fastify from 'fastify'
import { Queue } from 'bullmq'
import { Redis } from 'ioredis'
import { QUEUE, processes } from './shared.js'

const id = { type: 'string', pattern: '^[A-Za-z0-9._:-]{1,128}$' }

const message = {
  type: 'object',
  required: ['external_message_id', 'external_client_id', 'client_phone', 'message_text', 'send_at'],
  properties: {
    external_message_id: id,
    external_client_id: id,
    // E.164 between spaces, dashes and brackets.
    client_phone: { type: 'string', pattern: '^[ ()\\[\\]-]*\\+[ ()\\[\\]-]*[1-9](?:[ ()\\[\\]-]*[0-9]){6,14}[ ()\\[\\]-]*$' },
    message_text: { type: 'string', minLength: 1, maxLength: 4096, pattern: '^[^\\u0000]*$' },
    send_at: { type: 'integer', minimum: 946_684_800 },
  },
}

const accepted = {
  type: 'object',
  properties: { status: { type: 'string' }, message_id: { type: 'string' } },
}

async function serve() {
  const connection = new Redis(process.env.REDIS_URL, { enableOfflineQueue: false })
  await new Promise((resolve, reject) => connection.once('ready', resolve).once('error', reject))
  const queue = new Queue(QUEUE, {
    connection,
    defaultJobOptions: {
      attempts: 8,
      backoff: { type: 'exponential', delay: 1000 },
      removeOnComplete: true,
      removeOnFail: { age: 7 * 24 * 3600 },
    },
  })
  queue.on('error', (error) => console.error(`serve: ${error.message}`))

  const app = Fastify({ bodyLimit: 64 * 1024, ajv: { customOptions: { coerceTypes: false } } })
  app.post('/api/v1/webhook', { schema: { body: message, response: { 202: accepted } } }, async (request, reply) => {
    const body = request.body
    if (body.send_at > Date.now() / 1000 + 86_400) {
      return reply.code(422).send({ error: 'send_at must be between 2000-01-01 and a day from now' })
    }
    body.client_phone = body.client_phone.replace(/[ ()[\]-]/g, '')
    // BullMQ takes no colon in an id, and no id that is a number.
    const jobId = `m-${encodeURIComponent(body.external_message_id)}`
    try {
      await queue.add('message', body, { jobId })
    } catch (error) {
      console.error(`serve: ${error.message}`)
      return reply.code(503).send({ error: 'not known whether it was accepted: send it again' })
    }
    return reply.code(202).send({ status: 'accepted', message_id: jobId })
  })

  await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096 })
  process.on('SIGTERM', async () => {
    await app.close()
    await queue.close()
    process.exit(0)
  })
}

processes(serve)
