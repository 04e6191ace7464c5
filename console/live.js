// The one connection behind all pages: it tells of each block as it commits, says when it is lost, and
// goes on where it was.

import { useEffect, useState } from './vendor/hooks.js'

/** Blocks and entries kept for the pages. */
const BLOCKS_KEPT = 60
const ENTRIES_KEPT = 120

/** Seconds of rates kept. */
export const SECONDS_KEPT = 120

/** Blocks behind the newest from which one begins anew instead of going through all of them. */
const CATCH_UP_BLOCKS_MAX = 2_000

/** Pages hear of news at most this often, in milliseconds: a fast ledger is no faster to read. */
const NEWS_MS = 250

/** Waits between attempts, in milliseconds. */
const WAIT_FIRST_MS = 400
const WAIT_MAX_MS = 5_000

/** Silence after which a connection counts as lost: three heartbeats. */
const SILENCE_MS = 95_000

export const live = {
  /** `connecting` at first, then `live`, `lost`, and `resuming` until all that was missed is here. */
  status: 'connecting',
  /** When it was lost, in milliseconds since 1970. */
  since: Date.now(),
  /** Counts connections made: pages that failed ask again. */
  generation: 0,
  /** What the node said of itself when the connection was made. */
  node: undefined,
  /** Height of the newest block that is known here. */
  height: undefined,
  /** Transactions in all blocks up to it. */
  transactions: undefined,
  /** Newest first: `{ height, time, hash, count, kinds }`. */
  blocks: [],
  /** Newest first: events, and `{ more, height }` for those of a block that were not told. */
  entries: [],
  /** Entries and blocks per second of block time. */
  seconds: new Map(),
  /** Milliseconds that this clock is ahead of the node's, as far as can be told. */
  ahead: Infinity,
  /** Told once when the node turns out to hold another ledger. */
  changed: false,
}

const listeners = new Set()
let told = 0
let timer

function tell(now = false) {
  if (now) clearTimeout(timer)
  else if (timer) return
  const wait = now ? 0 : Math.max(0, told + NEWS_MS - Date.now())
  timer = setTimeout(() => {
    timer = undefined
    told = Date.now()
    for (const listener of [...listeners]) listener()
  }, wait)
}

/** What is known, kept current. */
export function useLive() {
  const [, setCount] = useState(0)
  useEffect(() => {
    const heard = () => setCount((count) => count + 1)
    listeners.add(heard)
    return () => listeners.delete(heard)
  }, [])
  return live
}

/** Counts connections made, and nothing else: whoever only waits for the node is not woken by each block. */
export function useGeneration() {
  const [generation, setGeneration] = useState(live.generation)
  useEffect(() => {
    const heard = () => setGeneration(live.generation)
    listeners.add(heard)
    return () => listeners.delete(heard)
  }, [])
  return generation
}

async function ask(question) {
  const reply = await fetch('/console/data/' + question, { cache: 'no-store', signal: AbortSignal.timeout(10_000) })
  if (!reply.ok) throw new Error(`status ${reply.status}`)
  return reply.json()
}

let socket
let attempts = 0
let retry
let silence

/** Connects, and stays connected. */
export function start() {
  addEventListener('online', hurry)
  document.addEventListener('visibilitychange', () => document.hidden || hurry())
  connect()
}

function hurry() {
  if (live.status !== 'lost') return
  clearTimeout(retry)
  connect()
}

async function connect() {
  clearTimeout(retry)
  retry = undefined
  try {
    const node = await ask('node')
    const other = live.node && (live.node.genesis !== node.genesis || node.height < live.height)
    const far = live.height !== undefined && node.height - live.height > CATCH_UP_BLOCKS_MAX
    if (live.height === undefined || other || far) {
      live.changed = Boolean(other)
      await begin(node)
    }
    live.node = node
    open()
  } catch {
    lost()
  }
}

/** Takes the newest blocks and entries up to what the node had when it was asked. */
async function begin(node) {
  const before = `${node.height + 1}.0`
  const [{ blocks }, { entries }] = await Promise.all([
    ask(`blocks?limit=30&before=${node.height + 1}`),
    ask(`entries?limit=50&before=${before}`),
  ])
  live.blocks = blocks
  live.entries = entries
  live.height = node.height
  live.transactions = Number(node.transactions)
  live.seconds = new Map()
  live.ahead = Infinity
  for (const block of blocks) count(block)
}

function open() {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:'
  const mine = new WebSocket(`${scheme}//${location.host}/console/live?after=${live.height}`)
  socket = mine
  mine.onopen = () => {
    attempts = 0
    live.status = 'resuming'
    live.generation += 1
    listen(mine)
    tell(true)
  }
  mine.onmessage = (message) => {
    listen(mine)
    take(JSON.parse(message.data))
  }
  mine.onclose = () => socket === mine && lost()
}

function listen(mine) {
  clearTimeout(silence)
  silence = setTimeout(() => mine.close(), SILENCE_MS)
}

function lost() {
  clearTimeout(silence)
  socket = undefined
  if (live.status !== 'lost') live.since = Date.now()
  live.status = 'lost'
  const wait = Math.min(WAIT_MAX_MS, WAIT_FIRST_MS * 2 ** attempts)
  attempts += 1
  clearTimeout(retry)
  // Many pages must not come back at the very same moment.
  retry = setTimeout(connect, wait * (0.75 + Math.random() / 2))
  tell(true)
}

function take(frame) {
  if (frame.notice === 'caught_up') live.status = 'live'
  if (frame.notice) {
    tell()
    return
  }
  const { events, ...block } = frame
  if (block.height <= live.height) return
  if (live.status === 'live') live.ahead = Math.min(live.ahead, Date.now() - block.time)
  live.height = block.height
  live.transactions += block.count
  const more = block.count - events.length
  const rest = more > 0 ? [{ more, height: block.height }] : []
  live.entries = [...events, ...rest, ...live.entries].slice(0, ENTRIES_KEPT)
  live.blocks = [block, ...live.blocks].slice(0, BLOCKS_KEPT)
  count(block)
  tell()
}

function count(block) {
  const second = Math.floor(block.time / 1000)
  const sum = live.seconds.get(second) ?? { entries: 0, blocks: 0 }
  sum.entries += block.count
  sum.blocks += 1
  live.seconds.set(second, sum)
  if (live.seconds.size > 2 * SECONDS_KEPT) {
    const oldest = Math.max(...live.seconds.keys()) - SECONDS_KEPT - 5
    for (const key of live.seconds.keys()) if (key < oldest) live.seconds.delete(key)
  }
}

/** Milliseconds since 1970 by the node's clock. */
export function nodeNow() {
  return Date.now() - (Number.isFinite(live.ahead) ? live.ahead : 0)
}
