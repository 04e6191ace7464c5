// The machine's own page: what it says over its socket, and its orders. Text from outside is only
// ever set as text.
'use strict'

const ACTIVITIES_MAX = 200
const ORDERS_MAX = 50
const RECONNECT_MS = 2000
const ORDER_STATUSES = ['open', 'paid', 'working', 'done', 'expired', 'failed']
const byId = (id) => document.getElementById(id)

function element(name, text, className) {
  const made = document.createElement(name)
  made.textContent = text
  if (className) made.className = className
  return made
}

/** An id with its middle left out; the whole of it is under the pointer. */
function shortId(name, id) {
  const made = element(name, id.length > 16 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id, 'id')
  made.title = id
  return made
}

function showStatus(status, message) {
  const plate = byId('status')
  plate.dataset.status = status
  plate.textContent = status.replaceAll('_', ' ')
  byId('message').textContent = message ?? ''
}

function log(at, text) {
  const line = document.createElement('li')
  const time = element('time', new Date(at).toLocaleTimeString('en-GB'))
  line.append(time, text)
  const list = byId('activities')
  list.prepend(line)
  while (list.children.length > ACTIVITIES_MAX) list.lastChild.remove()
}

async function fetchJson(path) {
  const answer = await fetch(path)
  if (!answer.ok) throw new Error(`status ${answer.status}`)
  return answer.json()
}

let waiting = null

/** Many events of one moment make one request. */
function refresh() {
  waiting ??= setTimeout(async () => {
    waiting = null
    try {
      await showOrders()
      await showInfo()
    } catch (error) {
      byId('message').textContent = String(error)
    }
  }, 100)
}

async function showOrders() {
  const orders = await fetchJson(`orders?limit=${ORDERS_MAX}`)
  byId('no-orders').hidden = orders.length > 0
  byId('orders').replaceChildren(...orders.reverse().map((order) => {
    const row = document.createElement('tr')
    row.append(
      element('td', new Date(order.created).toLocaleTimeString('en-GB')),
      shortId('td', order.uuid),
      element('td', `${order.received} of ${order.value}`),
      element('td', ORDER_STATUSES[order.status] ?? String(order.status)),
    )
    return row
  }))
}

async function showInfo() {
  const [info, limits] = await Promise.all([fetchJson('info'), fetchJson('limits')])
  const lines = [
    ['Name', info.name], ['Version', info.version], ['Role', info.role], ['Price', info.value],
    ['Token', info.asset], ['Provider', limits.provider ?? 'none'],
    ['Spent within the hour', limits.spent_last_hour],
    ['Limit of the hour', limits.per_hour ?? 'none'],
    ['May pay', limits.payees?.join(', ') ?? 'its provider'],
  ]
  byId('info').replaceChildren(...lines.flatMap(([name, value]) =>
    [element('dt', name), name === 'Token' ? shortId('dd', String(value)) : element('dd', String(value))]))
}

function take(event, body) {
  switch (event) {
    case 'init':
      document.title = body.name
      byId('name').textContent = body.name
      showStatus(body.status, body.message)
      log(Date.now(), `connected: ${body.status.replaceAll('_', ' ')}`)
      refresh()
      break
    case 'status':
      showStatus(body.status, body.message)
      log(body.at, `${body.status.replaceAll('_', ' ')}: ${body.message}`)
      refresh()
      break
    case 'new_balance':
      byId('balance').textContent = body.balance.toLocaleString('en-GB')
      break
  }
}

/** The few words of Engine.IO 4 and Socket.IO 5 that a listener needs. */
function connect() {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  const socket = new WebSocket(`${scheme}://${location.host}/socket.io/?EIO=4&transport=websocket`)
  socket.onmessage = ({ data }) => {
    if (data.startsWith('0')) socket.send('40')
    else if (data === '2') socket.send('3')
    else if (data.startsWith('42')) take(...JSON.parse(data.slice(2)))
  }
  socket.onclose = () => {
    showStatus('not_connected', 'trying again')
    setTimeout(connect, RECONNECT_MS)
  }
}

byId('fold').onclick = ({ currentTarget }) => {
  const panels = byId('panels')
  panels.hidden = !panels.hidden
  currentTarget.setAttribute('aria-expanded', String(!panels.hidden))
  currentTarget.textContent = panels.hidden ? 'Unfold' : 'Fold'
}
connect()
