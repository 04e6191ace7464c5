#!/usr/bin/env node
// Round trips over the bus against the same logic on node's socket.io and against nats-server, one after
// the other on one machine: rate, p50, p99, and the broker's processor time for each call.
//
//   node bench/bus/run.mjs [--binary target/release/daybook] [--seconds 5] [--rounds 3] [--nats FILE] [--json]
//
// The load is one lean client for both buses (raw WebSocket frames), so that its own cost is small and the
// same on both sides.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { setTimeout as pause } from 'node:timers/promises'
import WebSocket from 'ws'

const here = dirname(fileURLToPath(import.meta.url))
const flag = (name, other) => {
  const place = process.argv.indexOf(`--${name}`)
  return place < 0 ? other : process.argv[place + 1]
}
const BINARY = flag('binary', join(here, '../../target/release/daybook'))
const SECONDS = Number(flag('seconds', 5))
const ROUNDS = Number(flag('rounds', 3))
const WARM_UP_MS = 1_000
const CASES = [
  { callers: 1, workers: 1 }, { callers: 50, workers: 1 }, { callers: 50, workers: 8 },
]
const DATA = { zone: 'north', reading: 41.5, note: 'x'.repeat(64) }

/** Processor seconds that a process has used. */
function cpu(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

class Bus {
  constructor(url, key) {
    this.url = url.replace(/^http/, 'ws')
    this.key = key
  }

  /** A service, as lean as a client in JavaScript can be. */
  async join(name, subscription, hear) {
    const socket = new WebSocket(`${this.url}/socket.io/?EIO=4&transport=websocket`, { perMessageDeflate: false })
    const service = { socket }
    const online = new Promise((resolve, reject) => {
      socket.on('error', reject)
      socket.on('close', () => reject(new Error('closed')))
      socket.on('message', (data) => {
        const text = data.toString()
        if (text === '2') return socket.send('3')
        if (text[0] === '0') return socket.send('40/communication,')
        if (!text.startsWith('42/communication,')) {
          if (text.startsWith('43/communication,')) resolve()
          return undefined
        }
        const [event, body] = JSON.parse(text.slice(17))
        if (event === 'shake_who') return service.emit('shake_i_am', { name, key: this.key, features: ['subscribe'] })
        if (event === 'shake_id') {
          service.id = body.id
          return service.emit('shake_ready', { id: body.id })
        }
        if (event === 'shake_online') {
          if (!subscription) return resolve()
          return socket.send(`42/communication,1["_service:api:request:subscribe",${JSON.stringify(subscription)}]`)
        }
        if (event === 'shake_error') return reject(new Error(JSON.stringify(body)))
        return hear(service, event, body)
      })
    })
    service.emit = (event, body) => socket.send(`42/communication,["${event}",${JSON.stringify(body)}]`)
    service.close = () => socket.terminate()
    await online
    return service
  }

  worker(n) {
    return this.join(`worker${n}`, { name: 'bench.call', queue: 'w' }, (service, event, request) => {
      if (event !== 'bench.call') return
      request.recipient_id = service.id
      service.emit('api:response', request)
    })
  }

  async caller(n) {
    let told
    let count = 0
    const service = await this.join(`caller${n}`, undefined, (_, event, answer) => {
      if (event === 'api:response') told(answer)
    })
    const call = () => new Promise((resolve, reject) => {
      told = (answer) => (answer.error ? reject(new Error(JSON.stringify(answer))) : resolve())
      service.emit('api:request', { name: 'bench.call', request_id: `c${n}:${count++}`, sender_id: service.id, data: DATA })
    })
    return { call, close: service.close }
  }
}

/** A client of nats-server, over plain TCP as its own clients are. */
class Nats {
  constructor(port) { this.port = port }

  async join(hear) {
    const socket = connect(this.port, '127.0.0.1')
    socket.setNoDelay(true)
    await once(socket, 'connect')
    let rest = Buffer.alloc(0)
    socket.on('data', (data) => {
      rest = rest.length ? Buffer.concat([rest, data]) : data
      for (;;) {
        const end = rest.indexOf('\r\n')
        if (end < 0) return
        const words = rest.subarray(0, end).toString().split(' ')
        if (words[0] === 'MSG') {
          const length = Number(words[words.length - 1])
          if (rest.length < end + 4 + length) return
          const body = rest.subarray(end + 2, end + 2 + length)
          rest = rest.subarray(end + 4 + length)
          hear(socket, words.length === 5 ? words[3] : undefined, JSON.parse(body))
        } else {
          if (words[0] === 'PING') socket.write('PONG\r\n')
          rest = rest.subarray(end + 2)
        }
      }
    })
    socket.write('CONNECT {"verbose":false,"pedantic":false}\r\n')
    return socket
  }

  async worker() {
    const socket = await this.join((own, reply, request) => {
      const text = JSON.stringify(request)
      own.write(`PUB ${reply} ${Buffer.byteLength(text)}\r\n${text}\r\n`)
    })
    socket.write('SUB bench.call w 1\r\n')
    return { close: () => socket.destroy() }
  }

  async caller(n) {
    let told
    let count = 0
    const socket = await this.join((_, __, answer) => told(answer))
    socket.write(`SUB _INBOX.${n} 1\r\n`)
    const call = () => new Promise((resolve) => {
      told = resolve
      const text = JSON.stringify({ name: 'bench.call', request_id: `c${n}:${count++}`, data: DATA })
      socket.write(`PUB bench.call _INBOX.${n} ${Buffer.byteLength(text)}\r\n${text}\r\n`)
    })
    return { call, close: () => socket.destroy() }
  }
}

const started = []
async function start(command, args, env = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env } })
  started.push(child)
  const [line] = await once(createInterface({ input: child.stdout }), 'line')
  return { child, line }
}

async function measure(bus, pid, { callers, workers }) {
  const working = await Promise.all(Array.from({ length: workers }, (_, n) => bus.worker(n)))
  const calling = await Promise.all(Array.from({ length: callers }, (_, n) => bus.caller(n)))
  await pause(200)
  let going = true
  let counting = false
  const took = []
  const loops = calling.map(async ({ call }) => {
    while (going) {
      const began = performance.now()
      await call()
      if (counting) took.push(performance.now() - began)
    }
  })
  await pause(WARM_UP_MS)
  const before = cpu(pid)
  const began = performance.now()
  counting = true
  await pause(SECONDS * 1_000)
  counting = false
  const seconds = (performance.now() - began) / 1_000
  const used = cpu(pid) - before
  going = false
  await Promise.all(loops)
  for (const each of [...working, ...calling]) each.close()
  await pause(200)
  took.sort((a, b) => a - b)
  const at = (share) => took[Math.min(took.length - 1, Math.floor(took.length * share))]
  return { rate: took.length / seconds, p50: at(0.5), p99: at(0.99), cpu: (used / took.length) * 1e6 }
}

const folder = mkdtempSync(join(tmpdir(), 'bus-bench-'))
try {
  const node = await start(BINARY, ['start', '--dev', '--json', '--data-dir', join(folder, 'data'), '--listen', '127.0.0.1:0', '--streams-listen', 'off', '--bus-listen', '127.0.0.1:0'], { DAYBOOK_LOG_LEVEL: 'warn' })
  const listening = JSON.parse(node.line)
  const script = await start(process.execPath, [join(here, 'broker.mjs')], { BUS_KEY: 'bench' })
  const sides = [
    { name: 'daybook', bus: new Bus(listening.bus, listening.bus_key), pid: node.child.pid },
    { name: 'socket.io', bus: new Bus(JSON.parse(script.line).bus, 'bench'), pid: script.child.pid },
  ]
  const nats = [flag('nats', ''), '/usr/sbin/nats-server', '/usr/bin/nats-server'].find((path) => path && existsSync(path))
  if (nats) {
    const port = 20_000 + (process.pid % 20_000)
    const child = spawn(nats, ['-a', '127.0.0.1', '-p', String(port)], { stdio: 'ignore' })
    started.push(child)
    await pause(1_000)
    sides.push({ name: 'nats', bus: new Nats(port), pid: child.pid })
  } else {
    console.error('nats-server is not installed (apt-get install nats-server): that side is left out')
  }
  const results = []
  for (const each of CASES) {
    const rounds = Object.fromEntries(sides.map((side) => [side.name, []]))
    // Side by side in turn, so that what else the machine does falls on all of them.
    for (let round = 0; round < ROUNDS; round++) {
      for (const side of sides) rounds[side.name].push(await measure(side.bus, side.pid, each))
    }
    const median = (name, what) => rounds[name].map((one) => one[what]).sort((a, b) => a - b)[Math.floor(ROUNDS / 2)]
    for (const { name } of sides) {
      results.push({
        ...each, side: name, calls_per_second: Math.round(median(name, 'rate')),
        p50_ms: Number(median(name, 'p50').toFixed(3)), p99_ms: Number(median(name, 'p99').toFixed(3)),
        broker_cpu_us: Number(median(name, 'cpu').toFixed(1)),
        rate_ratio: Number((median('daybook', 'rate') / median(name, 'rate')).toFixed(2)),
        cpu_ratio: Number((median('daybook', 'cpu') / median(name, 'cpu')).toFixed(2)),
      })
    }
  }
  if (process.argv.includes('--json')) results.forEach((result) => console.log(JSON.stringify(result)))
  else console.table(results)
} finally {
  for (const child of started) child.kill()
  rmSync(folder, { recursive: true, force: true })
}
