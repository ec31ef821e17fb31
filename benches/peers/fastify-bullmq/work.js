// The worker: BullMQ hands out jobs, each becomes its rows in one transaction.

import { readFileSync } from 'node:fs'
import { Worker } from 'bullmq'
import { Redis } from 'ioredis'
import pg from 'pg'
import { QUEUE, fingerprintOf, keyOf, processes } from './shared.js'

const CONCURRENCY = 50
const CONNECTIONS = 25

async function work() {
  const text = readFileSync(new URL('store.sql', import.meta.url), 'utf8')
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: CONNECTIONS })
  pool.on('error', (error) => console.error(`work: ${error.message}`))

  async function store(job) {
    const { external_message_id, external_client_id, client_phone, message_text, send_at, ...extra } = job.data
    const values = [
      keyOf(external_message_id).toString('hex'),
      send_at,
      fingerprintOf(job.data),
      job.timestamp,
      external_client_id,
      client_phone,
      external_message_id,
      message_text,
      Object.keys(extra).length > 0 ? JSON.stringify(extra) : null,
    ]
    // With a name it is prepared once a connection.
    await pool.query({ name: 'store', text, values })
  }

  const connection = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null })
  const worker = new Worker(QUEUE, store, { connection, concurrency: CONCURRENCY })
  worker.on('error', (error) => console.error(`work: ${error.message}`))
  worker.on('failed', (job, error) => console.error(`work: ${job?.id} failed: ${error.message}`))
  process.on('SIGTERM', async () => {
    await worker.close()
    await pool.end()
    process.exit(0)
  })
}

processes(work)
