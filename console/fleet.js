// The machines that use this node: what they tell over their sockets, and what they are asked.

import { useEffect, useState } from './vendor/hooks.js'
import { Problem, text, usePolled } from './node.js'

/** Milliseconds between two looks at which machines there are. */
const LIST_MS = 5_000
/** Milliseconds until a lost connection is tried again. */
const RETRY_MS = 2_000
/** Times that a machine is asked for a payment, and the wait between, in milliseconds. */
const LOOKS = 50
const LOOK_MS = 200
/** Orders of a machine that are shown, and statuses that are kept. */
const ORDERS_MAX = 20
const TOLD_MAX = 40

/** Connections by the machine's address. They last as long as a page wants them. */
const fleet = new Map()
const listeners = new Set()

function tell() {
  for (const listener of [...listeners]) listener()
}

class Machine {
  constructor({ url, name, role }) {
    Object.assign(this, { url, name, role, status: 'not_connected', told: [], orders: [] })
    this.connect()
  }

  /** The few words of Engine.IO 4 and Socket.IO 5 that a listener needs. */
  connect() {
    let socket
    try {
      socket = new WebSocket(`${this.url.replace(/^http/, 'ws')}/socket.io/?EIO=4&transport=websocket`)
    } catch {
      // The page was loaded when this machine was not there, and its policy does not name it.
      this.blocked = true
      return
    }
    this.socket = socket
    socket.onmessage = ({ data }) => {
      if (typeof data !== 'string') return
      if (data.startsWith('0')) socket.send('40')
      else if (data === '2') socket.send('3')
      else if (data.startsWith('42')) this.hear(data.slice(2))
    }
    socket.onclose = () => {
      if (this.closed) return
      this.status = 'not_connected'
      this.message = undefined
      this.retry = setTimeout(() => this.connect(), RETRY_MS)
      tell()
    }
  }

  hear(packet) {
    let event, body
    try {
      ;[event, body] = JSON.parse(packet)
    } catch {
      return
    }
    if (!body || typeof body !== 'object') return
    if (event === 'init') {
      Object.assign(this, { status: String(body.status), message: body.message, value: body.value, asset: body.asset, balance: body.balance })
      this.refresh()
    } else if (event === 'status') {
      this.status = String(body.status)
      this.message = body.message
      this.told = [{ at: body.at, status: this.status, message: String(body.message ?? ''), seq: body.seq }, ...this.told].slice(0, TOLD_MAX)
      this.refresh()
    } else if (event === 'new_balance') {
      this.balance = body.balance
    } else {
      return
    }
    tell()
  }

  /** Asks for what the socket does not tell; many events of one moment make one request. */
  refresh() {
    this.waiting ??= setTimeout(async () => {
      this.waiting = undefined
      try {
        const [info, limits, orders] = await Promise.all([this.ask('/info'), this.ask('/limits'), this.ask(`/orders?limit=${ORDERS_MAX}`)])
        Object.assign(this, { info, limits, orders: orders.reverse(), problem: undefined })
      } catch (problem) {
        this.problem = problem
      }
      tell()
    }, 100)
  }

  async ask(path) {
    // What is the node's, its token above all, is not for machines.
    return JSON.parse(await text(this.url + path, { headers: {}, credentials: 'omit', referrerPolicy: 'no-referrer' }))
  }

  /** Places an order; the answer names the key to pay to. */
  async order(wanted) {
    const options = { method: 'POST', body: JSON.stringify(wanted), headers: { 'content-type': 'application/json' }, credentials: 'omit' }
    return JSON.parse(await text(`${this.url}/orders?format=json`, options))
  }

  /** Hands the signed payment in, so that the machine knows of it before its block and sends it on. */
  async announce(id, payment) {
    const options = { method: 'POST', body: payment, headers: { 'content-type': 'application/json' }, credentials: 'omit' }
    await text(`${this.url}/orders/${encodeURIComponent(id)}/payment`, options)
  }

  /** Waits until the machine says that a payment of an order is in the log; false when it does not say so. */
  async sees(order, payment) {
    for (let look = 0; look < LOOKS; look += 1) {
      const { payments = [] } = await this.ask(`/orders/${encodeURIComponent(order)}`)
      if (payments.some((each) => each.transaction_id === payment && each.committed)) return true
      await new Promise((done) => setTimeout(done, LOOK_MS))
    }
    return false
  }

  close() {
    this.closed = true
    clearTimeout(this.retry)
    clearTimeout(this.waiting)
    this.socket?.close()
  }
}

// A connection that the page's policy forbids fails without saying why; this says it.
addEventListener('securitypolicyviolation', (event) => {
  for (const machine of fleet.values()) {
    if (event.blockedURI.startsWith(machine.url) || event.blockedURI.startsWith(machine.url.replace(/^http/, 'ws'))) {
      machine.blocked = true
      tell()
    }
  }
})

/** The machines that are there, each with its state, kept current; `undefined` until that is known. */
export function useFleet() {
  const answer = usePolled('/api/v1/machines', LIST_MS)
  const [, setCount] = useState(0)
  useEffect(() => {
    const heard = () => setCount((count) => count + 1)
    listeners.add(heard)
    return () => {
      listeners.delete(heard)
      for (const machine of fleet.values()) machine.close()
      fleet.clear()
    }
  }, [])
  const listed = answer.value?.machines
  useEffect(() => {
    if (!listed) return
    for (const [url, machine] of fleet) {
      if (listed.some((each) => each.url === url)) continue
      machine.close()
      fleet.delete(url)
    }
    for (const each of listed) {
      if (!fleet.has(each.url)) fleet.set(each.url, new Machine(each))
    }
    tell()
  }, [listed])
  const machines = listed && listed.map((each) => fleet.get(each.url)).filter(Boolean).sort(byRole)
  return { answer, machines }
}

/** Those who make things before those who supply them, each by name. */
function byRole(one, other) {
  return Number(one.role === 'provider') - Number(other.role === 'provider') || one.name.localeCompare(other.name) || one.url.localeCompare(other.url)
}

/** Why something did not work, in words. */
export function reason(problem) {
  return problem instanceof Problem && problem.status === 0 ? 'The machine does not answer.' : problem.message
}
