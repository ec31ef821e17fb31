// What both processes of this peer agree on.

import cluster from 'node:cluster'
import { createHash } from 'node:crypto'

export const QUEUE = 'messages'

// As Weir's MessageKey: a 16-byte digest of (source, id).
export function keyOf(id) {
  const source = Buffer.from('messenger')
  const hash = createHash('sha256').update(u64(source.length)).update(source).update(id)
  return hash.digest().subarray(0, 16)
}

// As Weir's Fingerprint: 56 bits of a digest of the content. A string, because JavaScript's numbers end at 53.
export function fingerprintOf(message) {
  const hash = createHash('sha256')
  for (const field of [message.external_client_id, message.client_phone, message.message_text]) {
    const bytes = Buffer.from(field)
    hash.update(u64(bytes.length)).update(bytes)
  }
  const digest = hash.update(u64(message.send_at)).digest()
  return (digest.readBigUInt64BE() >> 8n).toString()
}

function u64(number) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(number))
  return bytes
}

// Runs `serve` in so many processes that share one port. A child whose parent is gone ends by itself, as Node's cluster
// has it; one that ends takes all with it.
export function processes(run) {
  if (!cluster.isPrimary) return run()
  for (let n = 0; n < Number(process.env.PROCESSES ?? 2); n++) cluster.fork()
  let ending = false
  const end = () => {
    ending = true
    for (const child of Object.values(cluster.workers)) child.process.kill('SIGTERM')
  }
  process.on('SIGTERM', end)
  cluster.on('exit', (child, code) => {
    if (!ending) process.exitCode = code || 1
    end()
  })
}
