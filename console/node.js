// What the node is asked for.

import { useEffect, useState } from './vendor/hooks.js'
import { live, useGeneration } from './live.js'

/** Milliseconds after which a question counts as lost. */
const PATIENCE_MS = 15_000

/** An answer other than the one wanted. `status` is 0 when there was no answer. */
export class Problem extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

/** The node's token, if somebody gave it: in memory, until the page is left. */
export const secret = { token: '' }

/** The header that shows the token; what no header can carry is none. */
export function authorization() {
  const token = secret.token.trim()
  return /^[!-~]+$/.test(token) ? { authorization: `Bearer ${token}` } : {}
}

/** The address of a question, without parameters that have no value. */
export function address(path, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== '')
  const query = new URLSearchParams(given).toString()
  return path + (query ? '?' + query : '')
}

/** Asks; the answer as text. */
export async function text(path, options = {}) {
  const stop = options.signal ? AbortSignal.any([options.signal, AbortSignal.timeout(PATIENCE_MS)]) : AbortSignal.timeout(PATIENCE_MS)
  let reply
  try {
    reply = await fetch(path, { cache: 'no-store', headers: authorization(), ...options, signal: stop })
  } catch (error) {
    if (options.signal?.aborted) throw error
    throw new Problem(0, error.name === 'TimeoutError' ? 'The node did not answer in time.' : 'The node cannot be reached.')
  }
  let body
  try {
    body = await reply.text()
  } catch (error) {
    if (options.signal?.aborted) throw error
    throw new Problem(0, 'The answer broke off.')
  }
  if (!reply.ok) throw new Problem(reply.status, messageOf(body) ?? `The node answered ${reply.status}.`)
  return body
}

/** Asks; the answer read as JSON. */
export async function json(path, options) {
  return JSON.parse(await text(path, options))
}

/** Asks the console's own questions. */
export function data(question, params, options) {
  return json(address('/console/data/' + question, params), options)
}

function messageOf(body) {
  try {
    const { message, detail } = JSON.parse(body)
    if (typeof message === 'string') return message
    // A member's gateway says it so.
    if (typeof detail === 'string') return detail
    const [[name, text]] = Object.entries(message)
    return `${name}: ${text}`
  } catch {
    return undefined
  }
}

/**
 * The answer to a question, asked again when it changes, when `again` changes, and, if it failed, when
 * the connection comes back. `undefined` in place of a path asks nothing.
 */
export function useAnswer(path, again = 0, read = json) {
  const [answer, setAnswer] = useState({})
  const generation = useGeneration()
  const retry = answer.problem?.status === 0 ? generation : 0
  useEffect(() => {
    if (path === undefined) return undefined
    const stop = new AbortController()
    read(path, { signal: stop.signal }).then(
      (value) => !stop.signal.aborted && setAnswer({ path, value }),
      (problem) => !stop.signal.aborted && setAnswer((before) => ({ path, problem, value: before.path === path ? before.value : undefined })),
    )
    return () => stop.abort()
  }, [path, again, retry])
  return answer.path === path ? answer : {}
}

/** The answer to one of the console's own questions. */
export function useData(question, params, again) {
  return useAnswer(question === undefined ? undefined : address('/console/data/' + question, params), again)
}

/** The answer to a question that is asked again every so many milliseconds. */
export function usePolled(path, every, read) {
  const [tick, setTick] = useState(0)
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden && live.status !== 'lost') setTick((tick) => tick + 1)
    }, every)
    return () => clearInterval(timer)
  }, [every])
  return useAnswer(path, tick, read)
}

/** Samples of Prometheus text: `[{ name, labels, value }]`. */
export async function metrics(path, options) {
  const lines = (await text(path, options)).split('\n')
  const help = {}
  const samples = []
  for (const line of lines) {
    const told = /^# HELP (\S+) (.*)$/.exec(line)
    if (told) help[told[1]] = told[2]
    const sample = /^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$/.exec(line)
    if (sample) samples.push({ name: sample[1], labels: sample[2] ?? '', value: sample[3] })
  }
  return { help, samples }
}
