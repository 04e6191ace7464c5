// One real node with its bus, and services on it that speak through third-party clients.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as after } from 'node:timers/promises'

const require = createRequire(import.meta.url)

// A node answers within milliseconds; the bounds only turn a hang into a failure.
const START_MS_MAX = 60_000
const STOP_MS_MAX = 30_000
export const HEAR_MS_MAX = 20_000

export const CLIENTS = ['4.8', '2.5', '2.2', '1.7', '1.4']
export const TRANSPORTS = {
  polling: ['polling'],
  websocket: ['websocket'],
  upgrade: ['polling', 'websocket'],
}

export class Broker {
  /** Starts `daybook start --dev` and waits for the addresses and the key that it prints. */
  static async start(name, { folder, more = [], env = {} } = {}) {
    const broker = new Broker()
    if (folder === undefined) {
      const parent = process.env.CONFORMANCE_DATA ?? tmpdir()
      mkdirSync(parent, { recursive: true })
      folder = mkdtempSync(join(parent, `${name}-`))
    }
    broker.folder = folder
    broker.logPath = join(folder, `node-${Date.now()}.log`)
    const inherited = Object.entries(process.env).filter(([key]) => !key.startsWith('DAYBOOK_'))
    broker.env = { ...Object.fromEntries(inherited), ...env }
    broker.process = spawn(
      process.env.CONFORMANCE_BINARY,
      ['start', '--dev', '--data-dir', join(folder, 'data'), '--listen', '127.0.0.1:0',
        '--streams-listen', '127.0.0.1:0', '--bus-listen', '127.0.0.1:0', '--json', ...more],
      {
        cwd: folder,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { DAYBOOK_LOG_LEVEL: 'trace,hyper=info,mio=info', ...broker.env },
      },
    )
    const log = createWriteStream(broker.logPath)
    broker.process.stderr.pipe(log)
    broker.logged = once(log, 'close')
    broker.exited = once(broker.process, 'exit')
    broker.exited.catch(() => {})
    const lines = createInterface({ input: broker.process.stdout })
    const ended = broker.exited.then(async ([code]) => {
      await broker.logged
      throw new Error(`the node ended with ${code}:\n${broker.log()}`)
    })
    ended.catch(() => {})
    const [line] = await within(START_MS_MAX, Promise.race([once(lines, 'line'), ended]), 'the start')
    const listening = JSON.parse(line)
    broker.url = listening.bus.replace(/\/$/, '')
    broker.api = listening.http.replace(/\/$/, '')
    broker.key = listening.bus_key
    return broker
  }

  log() {
    return readFileSync(this.logPath, 'utf8')
  }

  /** Bytes of memory that it holds. */
  memory() {
    const [, kib] = /^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${this.process.pid}/status`, 'utf8'))
    return kib * 1024
  }

  /** Ends it without a word, as a loss of power would. */
  async kill() {
    this.process.kill('SIGKILL')
    await this.exited
  }

  async stop() {
    this.process.kill('SIGTERM')
    const [code] = await within(STOP_MS_MAX, this.exited, 'the stop of the node')
    await this.logged
    const log = this.log()
    if (code !== 0 || log.includes('panicked at')) throw new Error(`exit ${code}:\n${log.slice(-8000)}`)
    return log
  }

  async get(path) {
    const response = await fetch(this.url + path)
    return response.json()
  }

  /** Runs `daybook …` on the data of this node; answers what it prints. */
  async run(...args) {
    const child = spawn(process.env.CONFORMANCE_BINARY,
      [...args, '--data-dir', join(this.folder, 'data'), '--json'], { env: this.env })
    let said = ''
    child.stdout.on('data', (data) => { said += data })
    child.stderr.on('data', (data) => { said += data })
    const [code] = await once(child, 'exit')
    if (code !== 0) throw new Error(`exit ${code}: ${said}`)
    return said.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line))
  }
}

/** A socket in the namespace, and everything that it has heard. */
export class Service {
  heard = []
  taken = 0
  #wake = new Set()

  static open(broker, { client = '4.8', transports = ['websocket'], at = broker.url } = {}) {
    const service = new Service()
    const io = require(`sio-${client}`)
    service.broker = broker
    const options = { transports, forceNew: true, reconnection: false, timeout: HEAR_MS_MAX }
    service.socket = io(`${at}/communication`, options)
    const hear = (name, args) => {
      service.heard.push({ name, args, at: Date.now() })
      for (const wake of service.#wake) wake()
    }
    // Every event, whatever its name; each of the clients calls this for a packet.
    const onevent = service.socket.onevent
    service.socket.onevent = function (packet) {
      const [name, ...args] = packet.data
      hear(name, args)
      onevent.call(this, packet)
    }
    service.socket.on('connect', () => hear('(connect)', []))
    service.socket.on('disconnect', (reason) => hear('(disconnect)', [reason]))
    service.socket.on('connect_error', (error) => hear('(connect_error)', [String(error)]))
    service.socket.on('error', (error) => hear('(error)', [error]))
    return service
  }

  /** A service that is online. */
  static async join(broker, name, { subscribe, legacy = false, key = broker.key, more = {}, ...options } = {}) {
    const service = Service.open(broker, options)
    await service.hears('shake_who')
    const body = { name, key, ...more }
    if (!legacy) body.features = ['subscribe']
    service.emit('shake_i_am', body)
    const [id] = (await service.hears('shake_id')).args
    service.id = id.id
    service.token = id.resume_token
    service.emit('shake_ready', { id: id.id })
    await service.hears('shake_online')
    for (const one of [subscribe ?? []].flat()) {
      await service.asks('_service:api:request:subscribe', typeof one === 'string' ? { name: one } : one)
    }
    return service
  }

  emit(name, ...args) {
    this.socket.emit(name, ...args)
  }

  /** Waits until it speaks over this transport; an upgrade takes a moment. */
  async speaks(transport) {
    const began = Date.now()
    const spoken = () => this.socket.io.engine?.transport.name
    while (spoken() !== transport) {
      if (Date.now() - began > HEAR_MS_MAX) throw new Error(`it speaks ${spoken()}, not ${transport}`)
      await after(10)
    }
  }

  /** Emits and waits for the acknowledgement. */
  async asks(name, body) {
    return within(HEAR_MS_MAX, new Promise((resolve) => this.socket.emit(name, body, resolve)), name)
  }

  /** The next event of that name, or that fits; earlier ones are taken only once. */
  async hears(what, ms = HEAR_MS_MAX) {
    const fits = typeof what === 'function' ? what : (event) => event.name === what
    const found = () => this.heard.findIndex((event) => !event.used && fits(event))
    const arrived = new Promise((resolve) => {
      const wake = () => {
        const place = found()
        if (place < 0) return
        this.#wake.delete(wake)
        this.heard[place].used = true
        resolve(this.heard[place])
      }
      this.#wake.add(wake)
      wake()
    })
    const names = () => this.heard.map((event) => event.name).slice(-20).join(', ')
    try {
      return await within(ms, arrived, 'waiting')
    } catch {
      throw new Error(`heard no ${what}, only ${names()}`)
    }
  }

  async hearsMany(name, count) {
    const all = () => this.heard.filter((event) => event.name === name)
    const arrived = new Promise((resolve) => {
      const wake = () => {
        if (all().length < count) return
        this.#wake.delete(wake)
        resolve()
      }
      this.#wake.add(wake)
      wake()
    })
    await within(HEAR_MS_MAX, arrived, `${count} × ${name} (so far ${all().length})`)
    return all()
  }

  count(name) {
    return this.heard.filter((event) => event.name === name).length
  }

  request(name, id, more = {}) {
    this.emit('api:request', { name, request_id: id, sender_id: this.id, ...more })
  }

  /** Requests and waits for the answer. */
  async call(name, id, more = {}) {
    this.request(name, id, more)
    const answer = await this.hears((event) => event.name === 'api:response' && event.args[0].request_id === id)
    return answer.args[0]
  }

  answer(request, data) {
    this.emit('api:response', { ...request, recipient_id: this.id, data })
  }

  /** Answers every request of a name. */
  serves(name, work) {
    this.socket.on(name, (request) => this.answer(request, work(request)))
    return this
  }

  close() {
    this.socket.close()
  }
}

/** Rejects when `promise` has not settled in time. */
export async function within(ms, promise, what) {
  const timer = new AbortController()
  const late = after(ms, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`${what} took more than ${ms} ms`)
  })
  late.catch(() => {})
  try {
    return await Promise.race([promise, late])
  } finally {
    timer.abort()
  }
}

export { after as pause }
