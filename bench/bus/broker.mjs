// The measure: the same broker logic in a page of JavaScript, on node's own socket.io server. It keeps
// what a call costs (handshake, groups by fewest open requests, deadlines, answers checked against what
// was delivered) and leaves out what a call does not touch.
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const TIMEOUT_MS = 30_000

const http = createServer()
const io = new Server(http, { serveClient: false, perMessageDeflate: false, transports: ['websocket'] })
const instances = new Map() // id → {socket, open}
const plain = new Map() // name → Set of ids
const groups = new Map() // name → Map(queue → {ids, next})
const calls = new Map() // requester + request id → {to, timer}

const failed = (request, code, status) =>
  ({ ...request, data: undefined, recipient_id: 'eman', error: { message: code, code, status } })

function pick(group) {
  let best
  for (let n = 0; n < group.ids.length; n++) {
    const id = group.ids[(group.next + n) % group.ids.length]
    if (best === undefined || instances.get(id).open < instances.get(best).open) best = id
  }
  group.next = group.ids.indexOf(best) + 1
  return best
}

function finish(key, call) {
  calls.delete(key)
  clearTimeout(call.timer)
  for (const id of call.to) {
    const instance = instances.get(id)
    if (instance) instance.open--
  }
}

io.of('/communication').on('connection', (socket) => {
  let id
  socket.emit('shake_who')
  socket.on('shake_i_am', (body) => {
    if (typeof body?.name !== 'string' || body.key !== process.env.BUS_KEY) return socket.disconnect()
    id = `${body.name}.${Date.now()}.${randomBytes(16).toString('hex')}`
    socket.emit('shake_id', { id })
  })
  socket.on('shake_ready', (body) => {
    if (body?.id !== id) return socket.disconnect()
    instances.set(id, { socket, open: 0 })
    socket.emit('shake_online')
  })
  socket.on('_service:api:request:subscribe', (body, ack) => {
    if (typeof body?.name !== 'string') return
    if (body.queue) {
      const queues = groups.get(body.name) ?? groups.set(body.name, new Map()).get(body.name)
      const group = queues.get(body.queue) ?? queues.set(body.queue, { ids: [], next: 0 }).get(body.queue)
      if (!group.ids.includes(id)) group.ids.push(id)
    } else {
      (plain.get(body.name) ?? plain.set(body.name, new Set()).get(body.name)).add(id)
    }
    ack?.({ ok: true, name: body.name })
  })
  socket.on('api:request', (request) => {
    if (!request?.name || !request.request_id || request.sender_id !== id) {
      return socket.emit('api:request:error', { error: { code: 'no_required_fields', status: 400 } })
    }
    const key = `${id} ${request.request_id}`
    if (calls.has(key)) return
    const to = [...(plain.get(request.name) ?? [])]
    for (const group of groups.get(request.name)?.values() ?? []) {
      if (group.ids.length > 0) to.push(pick(group))
    }
    if (to.length === 0) return socket.emit('api:response', failed(request, 'no_responders', 503))
    const call = { to }
    call.timer = setTimeout(() => {
      finish(key, call)
      socket.emit('api:response', failed(request, 'timeout', 504))
    }, request.timeout_ms ?? TIMEOUT_MS)
    calls.set(key, call)
    for (const one of to) {
      const instance = instances.get(one)
      instance.open++
      instance.socket.emit(request.name, request)
    }
  })
  socket.on('api:response', (answer) => {
    const key = `${answer?.sender_id} ${answer?.request_id}`
    const call = calls.get(key)
    if (!call || answer.recipient_id !== id || !call.to.includes(id)) {
      return socket.emit('api:response:error', { error: { code: 'unknown_request', status: 404 } })
    }
    finish(key, call)
    instances.get(answer.sender_id)?.socket.emit('api:response', answer)
  })
  socket.on('disconnect', () => {
    instances.delete(id)
    for (const ids of plain.values()) ids.delete(id)
    for (const queues of groups.values()) {
      for (const group of queues.values()) group.ids = group.ids.filter((one) => one !== id)
    }
  })
})

http.on('connection', (socket) => socket.setNoDelay(true))
http.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ bus: `http://127.0.0.1:${http.address().port}` })))
