#!/usr/bin/env node
// A soak: 200 connections of old and new clients call each other while workers are killed at random. Every
// call must end in exactly one of answer, error and timeout, none twice, and the broker's memory must be
// flat.
//
//   node bench/bus/soak.mjs [--binary …] [--minutes 10] [--connections 200] [--seed 1]
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as pause } from 'node:timers/promises'

const here = dirname(fileURLToPath(import.meta.url))
const flag = (name, other) => {
  const place = process.argv.indexOf(`--${name}`)
  return place < 0 ? other : process.argv[place + 1]
}
process.env.CONFORMANCE_BINARY ??= flag('binary', join(here, '../../target/release/daybook'))
const { Broker, CLIENTS, Service, TRANSPORTS } = await import('../../conformance/node/bus/broker.mjs')

const MINUTES = Number(flag('minutes', 10))
const CONNECTIONS = Number(flag('connections', 200))
const WORKERS = Math.floor(CONNECTIONS / 4)
// What a broker may grow by between the end of the first quarter and the last: buffers and caches that
// fill late, not what grows with the calls.
const GROWTH_MIB_MAX = 48
const CALL_MS_MAX = 2_000
const SETTLE_MS = 5_000

let seed = Number(flag('seed', Date.now() % 1_000_000))
console.log(`seed ${seed}`)
/** Mulberry32: the same sequence for the same seed. */
function random() {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const choose = (list) => list[Math.floor(random() * list.length)]

// Answers that are kept for repetitions fill their room within the first quarter, also of a short run.
const KEPT_BYTES = 8 << 20
const broker = await Broker.start('soak', { env: { DAYBOOK_LOG_LEVEL: 'warn', DAYBOOK_BUS_REMEMBER_BYTES: String(KEPT_BYTES) } })
const rss = () => broker.memory() / (1 << 20)
const end = Date.now() + MINUTES * 60_000
const ends = { answer: 0, error: 0, timeout: 0 }
let calls = 0
let killed = 0
let twice = 0
let missing = 0
const way = () => ({
  client: choose(CLIENTS),
  transports: TRANSPORTS[choose(Object.keys(TRANSPORTS))],
  // The bus's own address and the main listener's: one broker.
  at: choose([broker.url, broker.api]),
})

async function worker() {
  while (Date.now() < end) {
    let service
    try {
      service = await Service.join(broker, 'worker', { ...way(), subscribe: { name: 'soak.>', queue: choose(['a', 'b']) } })
    } catch {
      continue
    }
    for (const name of ['soak.work', 'soak.fail', 'soak.lost']) {
      service.socket.on(name, (request) => {
        if (name === 'soak.lost') return
        const { data, ...rest } = request
        const own = { ...rest, recipient_id: service.id }
        if (name === 'soak.fail') own.error = { message: 'no', code: 'no', status: 400, entity: null, list: null }
        else own.data = data
        setTimeout(() => service.emit('api:response', own), random() * 20)
      })
    }
    const until = Math.min(end + SETTLE_MS, Date.now() + 2_000 + random() * 30_000)
    while (Date.now() < until && service.socket.connected) {
      service.heard.length = 0
      await pause(200)
    }
    killed++
    service.socket.io.engine.close()
    service.close()
  }
}

async function caller(n) {
  const service = await Service.join(broker, 'caller', way())
  const open = new Map()
  service.socket.on('api:response', (answer) => {
    const call = open.get(answer.request_id)
    if (!call) {
      twice++
      return
    }
    open.delete(answer.request_id)
    const code = answer.error?.code
    ends[code === undefined ? 'answer' : code === 'timeout' ? 'timeout' : 'error']++
    call()
  })
  let count = 0
  while (Date.now() < end) {
    service.heard.length = 0
    const id = `${n}:${count++}`
    calls++
    await new Promise((resolve) => {
      const late = setTimeout(() => {
        missing++
        open.delete(id)
        resolve()
      }, CALL_MS_MAX + 10_000)
      open.set(id, () => {
        clearTimeout(late)
        resolve()
      })
      const name = random() < 0.9 ? 'soak.work' : choose(['soak.fail', 'soak.lost', 'soak.nobody.listens'])
      service.request(name, id, {
        data: { n, text: 'x'.repeat(Math.floor(random() * 500)) }, timeout_ms: name === 'soak.lost' ? 200 : CALL_MS_MAX,
        retry: random() < 0.5, delivery: choose(['auto', 'one']),
      })
    })
    await pause(random() * 50)
  }
  await pause(500)
  service.close()
}

const memory = []
const watch = setInterval(() => memory.push(rss()), 1_000)
const all = Array.from({ length: CONNECTIONS }, async (_, n) => {
  await pause(n * 10)
  return n < WORKERS ? worker() : caller(n)
})
await Promise.all(all)
clearInterval(watch)
const quarter = memory.slice(0, Math.ceil(memory.length / 4))
const [early, late] = [Math.max(...quarter), Math.max(...memory.slice(-Math.ceil(memory.length / 4)))]
console.log(JSON.stringify({ calls, ...ends, killed, twice, missing, early_mib: early, late_mib: late }))
await broker.stop()
const sum = ends.answer + ends.error + ends.timeout
if (twice || missing || sum !== calls) throw new Error('a call did not end exactly once')
if (late - early > GROWTH_MIB_MAX) throw new Error(`memory grew by ${late - early} MiB`)
