// One real node on ports of its own, and a subscriber to its streams.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, mkdtempSync, mkdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as after } from 'node:timers/promises'
import assert from 'node:assert/strict'
import WebSocket from 'ws'

// A node answers within milliseconds; the bounds only turn a hang into a failure.
const START_MS_MAX = 60_000
const STOP_MS_MAX = 30_000
const FRAME_MS_MAX = 30_000

/** Rejects when `promise` has not settled in time. */
async function within(ms, promise, what) {
  const timer = new AbortController()
  const late = after(ms, undefined, { signal: timer.signal, ref: true }).then(() => {
    throw new Error(`${what} took more than ${ms} ms`)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    timer.abort()
    late.catch(() => {})
  }
}

export class Node {
  /** Starts `daybook start` and waits for the addresses it prints. */
  static async start(name) {
    const parent = process.env.CONFORMANCE_DATA ?? tmpdir()
    mkdirSync(parent, { recursive: true })
    const folder = mkdtempSync(join(parent, `${name}-`))
    const node = new Node()
    node.logPath = join(folder, 'node.log')
    // Settings of the machine that runs the tests must not reach the node.
    const inherited = Object.entries(process.env).filter(([key]) => !key.startsWith('DAYBOOK_'))
    node.process = spawn(
      process.env.CONFORMANCE_BINARY,
      ['start', '--data-dir', join(folder, 'data'), '--listen', '127.0.0.1:0',
        '--streams-listen', '127.0.0.1:0', '--bus-listen', '127.0.0.1:0', '--json'],
      {
        cwd: folder,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...Object.fromEntries(inherited), DAYBOOK_ADVERTISED_SOFTWARE: 'BigchainDB' },
      },
    )
    const log = createWriteStream(node.logPath)
    node.process.stderr.pipe(log)
    node.logged = once(log, 'close')
    node.exited = once(node.process, 'exit')
    const lines = createInterface({ input: node.process.stdout })
    const [line] = await within(
      START_MS_MAX,
      Promise.race([
        once(lines, 'line'),
        node.exited.then(async ([code]) => {
          await node.logged
          throw new Error(`the node ended with ${code}:\n${readFileSync(node.logPath, 'utf8')}`)
        }),
      ]),
      'the start of the node',
    )
    node.exited.catch(() => {})
    const listening = JSON.parse(line)
    assert.equal(listening.event, 'listening')
    node.api = `${listening.http.replace(/\/$/, '')}/api/v1/`
    node.streams = listening.streams.replace(/\/$/, '')
    return node
  }

  /** A node that is asked to stop must do so in order, and must not have panicked before. */
  async stop() {
    this.process.kill('SIGTERM')
    const [code] = await within(STOP_MS_MAX, this.exited, 'the stop of the node')
    await this.logged
    const log = readFileSync(this.logPath, 'utf8')
    assert.equal(code, 0, log)
    assert.ok(!log.includes('panicked at'), log)
  }

  follow(stream = 'valid_transactions') {
    return Subscriber.open(`${this.streams}/api/v1/streams/${stream}`)
  }
}

export class Subscriber {
  frames = []
  #waiting = () => {}

  static async open(address) {
    const subscriber = new Subscriber()
    subscriber.socket = new WebSocket(address)
    subscriber.socket.on('message', (data) => {
      subscriber.frames.push(JSON.parse(data))
      subscriber.#waiting()
    })
    await within(FRAME_MS_MAX, once(subscriber.socket, 'open'), 'the WebSocket handshake')
    return subscriber
  }

  /** Waits until `enough(frames)` holds. */
  async wait(enough) {
    const arrived = new Promise((resolve) => {
      this.#waiting = () => enough(this.frames) && resolve()
      this.#waiting()
    })
    await within(FRAME_MS_MAX, arrived, `the stream (so far ${JSON.stringify(this.frames)})`)
    return this.frames
  }

  async close() {
    const closed = once(this.socket, 'close')
    this.socket.close()
    await within(FRAME_MS_MAX, closed, 'the closing of the stream')
  }
}
